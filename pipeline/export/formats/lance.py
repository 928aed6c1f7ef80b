"""Writes a dataset of `lance`.

Columns keep their types, except embeddings: they become lists of a fixed size, which Lance can index, if all vectors of
the column have one length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.core.errors import ConfigError
from pipeline.export.destination import Destination
from pipeline.export.libraries import library
from pipeline.export.limits import ShardLimits, library_errors
from pipeline.export.rows import Rows
from pipeline.storage import settings

_SCHEMES = ("s3", "gs", "az")
"""Object stores that Lance opens by itself. It cannot use file systems of fsspec."""
_BATCH_BYTES = 64 << 20
"""Most bytes of the vectors of a column in a batch: nulls take as many as vectors."""


def check(out: str) -> None:
    """Raises ``ConfigError`` if the library is missing or cannot write to ``out``."""
    library("lance")
    scheme = out.partition("://")[0]
    if not storage.is_local(out) and scheme not in _SCHEMES:
        known = ", ".join(f"{one}://" for one in _SCHEMES)
        raise ConfigError("OUT", f"Lance cannot write to {scheme}://", f"a local folder, or one of: {known}")


def write(rows: Rows, destination: Destination, limits: ShardLimits) -> list[str]:
    """Writes one version of a dataset. Returns warnings. Raises what `export_dataset` raises."""
    lance = library("lance")
    options = None if destination.is_local else _storage_options(destination.url)
    widths = {name: width for name in _vectors(rows) if (width := _first_width(rows, name)) is not None}
    ragged: list[str] = []
    while True:
        source = _Source(rows, widths)
        try:
            with library_errors("Lance", destination.out):
                lance.write_dataset(
                    source.reader(),
                    destination.url,
                    mode="create",
                    max_rows_per_file=limits.rows or 1 << 40,
                    max_bytes_per_file=limits.bytes,
                    storage_options=options,
                )
            break
        except BaseException:  # Lance has deleted what it wrote
            if source.ragged is None:
                if source.error is not None:  # Lance's own error has its text only
                    raise source.error from None
                raise
        ragged.append(source.ragged)
        del widths[source.ragged]
    return [f"vectors of {name!r} have different lengths, so that Lance cannot index them" for name in ragged]


class _Ragged(Exception):
    """A vector of a column has another length than those before."""


class _Source:
    """The rows with embeddings as lists of a fixed size, for one attempt.

    Args:
        rows: of the snapshot.
        widths: column -> values in each vector.
    """

    def __init__(self, rows: Rows, widths: dict[str, int]) -> None:
        self.rows, self.widths = rows, widths
        self.schema = pa.schema([self._field(field) for field in rows.schema])
        self.ragged: str | None = None
        """A column with a vector of another length."""
        self.error: BaseException | None = None
        """What was raised while Lance read the rows."""

    def reader(self) -> pa.RecordBatchReader:
        """Returns the rows as Lance takes them."""
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _field(self, field: pa.Field) -> pa.Field:
        width = self.widths.get(field.name)
        return field if width is None else field.with_type(pa.list_(field.type.value_type, width))

    def _batches(self) -> Iterator[pa.RecordBatch]:
        row_bytes = max((width * self._item_bytes(name) for name, width in self.widths.items()), default=1)
        most = max(1, _BATCH_BYTES // row_bytes)
        try:
            for batch in self.rows.batches():
                for start in range(0, len(batch), most):
                    yield self._converted(batch.slice(start, most))
        except BaseException as error:
            self.error = error
            raise

    def _item_bytes(self, name: str) -> int:
        return int(self.schema.field(name).type.value_type.bit_width // 8)

    def _converted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [
            self._fixed(name, array) if name in self.widths else array
            for name, array in zip(batch.schema.names, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _fixed(self, name: str, array: pa.Array) -> pa.Array:
        width = self.widths[name]
        if pc.any(pc.not_equal(pc.list_value_length(array), width)).as_py():
            self.ragged = name
            raise _Ragged(name)
        return array.cast(self.schema.field(name).type)


def _vectors(rows: Rows) -> Sequence[str]:
    """Returns the embeddings that are stored as lists of any length."""
    parts = rows.parts
    return [
        name
        for name in rows.columns
        if parts.get(name) == "embedding" and pa.types.is_list(rows.schema.field(name).type)
    ]


def _first_width(rows: Rows, name: str) -> int | None:
    """Returns the length of the first vector of a column; None: it has only nulls, or the vector is empty.

    The width in a footer is not used: it may be any number, and a null would take as much memory.
    """
    for batch in rows.dataset.batches([name]):
        found = pc.max(pc.list_value_length(batch.column(0))).as_py()
        if found is not None:
            return int(found) or None
    return None


def _storage_options(url: str) -> dict[str, Any]:
    """Returns the settings of a bucket (`storage.s3`) in Lance's names. Without any, Lance uses the same variables
    (``AWS_...``) as other programs."""
    found = settings.options(url)
    if "profile" in found:
        raise ConfigError("storage.s3", "Lance takes no profile of a bucket", "set AWS_PROFILE instead")
    endpoint = str(found.get("endpoint_url") or os.environ.get("AWS_ENDPOINT_URL", ""))
    style = found.get("config_kwargs", {}).get("s3", {}).get("addressing_style")
    options = {
        "aws_endpoint": found.get("endpoint_url"),
        "aws_region": found.get("client_kwargs", {}).get("region_name"),
        "aws_virtual_hosted_style_request": None if style is None else str(style == "virtual").lower(),
        "aws_skip_signature": "true" if found.get("anon") else None,
        "allow_http": "true" if endpoint.startswith("http://") else None,
    }
    return {name: value for name, value in options.items() if value is not None}
