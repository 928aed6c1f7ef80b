"""Encode and project: rows lose the encoders' inputs and gain the columns that are stored."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.arrow import list_column, unpack, vector_list_column
from pipeline.core.errors import DeviceFailed, SampleError, describe, device_failed
from pipeline.encoders.base import Encoded, Encoder
from pipeline.heads.base import Head
from pipeline.sandbox import Guard, unguarded
from pipeline.stages.decode import TIMES, input_column
from pipeline.stages.rows import Failure, add_failures, add_meter, failure, put
from pipeline.tokenizers.base import ModelInputs

CALLS_ON_GPU = 3
"""So many tables at once: the host unpacks and packs some while the device computes another."""

_SWITCH_S = 5e-4
"""A call lets others go on for each copy that it makes; 5 ms to get on again (Python's own) are most of its time."""


class RowJournal(Protocol):
    """Records each row before it is encoded by itself. Raises ``SampleError`` for a row that is not to be tried."""

    def enter(self, feature: str, sample_id: str, window: int) -> None: ...

    def rest(self) -> None: ...


class EncodeStage:
    """Hosts the encoders of some features. Maps rows with inputs to rows with stored columns.

    Several threads may call it at a time, unless one passes a journal.
    """

    guard: Guard = unguarded
    """Set by a process that maps tables; an encoder's work is not guarded."""

    def __init__(self, config: PipelineConfig, features: tuple[BoundFeature, ...], threads: int = 1) -> None:
        self.config = config
        self.features = features
        self.threads = threads
        self.encoders: dict[str, Encoder] = {}
        self.heads: dict[str, Head] = {}

    def setup(self) -> None:
        for feature in self.features:
            encoder = feature.encoder()
            encoder.token_dtype = np.dtype(feature.token_dtype)
            encoder.setup()
            self.encoders[feature.name] = encoder
            if feature.emits("embedding"):
                head = feature.head()
                head.check(f"features.{feature.name}.head")
                head.setup()
                self.heads[feature.name] = head
        if torch := sys.modules.get("torch"):  # seconds to import, and not every encoder needs it
            torch.set_num_threads(self.threads)
            if torch.cuda.is_initialized():  # a device that computes nothing is told before a row can be blamed
                torch.ones(8, device="cuda").sum().item()
                sys.setswitchinterval(_SWITCH_S)

    def close(self) -> None:
        """Drops the models."""
        self.encoders.clear()
        self.heads.clear()

    def __call__(self, table: pa.Table, journal: RowJournal | None = None) -> pa.Table:
        """Maps rows to finished rows.

        Args:
            journal: given for a table at which a process died: its rows are encoded one by one.
        """
        failures: list[list[Failure]] = [[] for _ in range(len(table))]
        spent = np.zeros(len(table))
        for feature in self.features:
            started = time.perf_counter()
            rows = self._encode(feature, table, journal)
            used = [i for i, row in enumerate(rows) if row is not None]
            table = self._store(feature, table, rows, failures)
            if used:
                spent[used] += (time.perf_counter() - started) / len(used)
        return add_failures(add_meter(table, "encode_s", spent), failures)

    def _encode(
        self, feature: BoundFeature, table: pa.Table, journal: RowJournal | None
    ) -> list[Encoded | SampleError | Exception | None]:
        """Per row what the encoder gave; None where there was nothing to encode."""
        prepared, first = _inputs(feature, table)
        todo = [i for i in sorted(set(first)) if i >= 0]
        rows = [prepared[i] for i in todo]
        want_tokens = feature.emits("tokens", "prefix_tokens", "token_ids")
        done: dict[int, Encoded | SampleError | Exception] = {}
        if journal is not None:
            ids, windows = table["sample_id"].to_pylist(), table["window"].to_pylist()
            for i in todo:
                done[i] = self._encode_alone(journal, feature, prepared[i], want_tokens, ids[i], windows[i])
            journal.rest()
            return [done[i] if i >= 0 else None for i in first]
        try:
            done = dict(zip(todo, self.encoders[feature.name].encode(rows, want_tokens), strict=True))
        except Exception as error:  # one row must not cost its neighbours: find out which it was
            _check_device(feature, error)
            if len(rows) == 1:
                done = {todo[0]: error}
            else:
                done = {i: self._encode_one(feature, prepared[i], want_tokens) for i in todo}
        return [done[i] if i >= 0 else None for i in first]

    def _encode_one(
        self, feature: BoundFeature, row: ModelInputs, want_tokens: bool
    ) -> Encoded | SampleError | Exception:
        try:
            return self.encoders[feature.name].encode([row], want_tokens)[0]
        except Exception as error:  # becomes the row's failure
            _check_device(feature, error)
            return error

    def _encode_alone(
        self,
        journal: RowJournal,
        feature: BoundFeature,
        row: ModelInputs,
        want_tokens: bool,
        sample_id: str,
        window: int,
    ) -> Encoded | SampleError | Exception:
        try:
            journal.enter(feature.name, sample_id, window)
        except SampleError as error:
            return error
        return self._encode_one(feature, row, want_tokens)

    def _store(
        self,
        feature: BoundFeature,
        table: pa.Table,
        rows: list[Encoded | SampleError | Exception | None],
        failures: list[list[Failure]],
    ) -> pa.Table:
        uris = table[f"{feature.modality}_uri"].to_pylist()
        good: list[Encoded | None] = [None] * len(rows)
        for i, row in enumerate(rows):
            if isinstance(row, Encoded):
                good[i] = row
            elif row is not None:
                failures[i].append(failure(feature.name, uris[i], "encode", row))
        columns, broken = self._columns(feature, good, self._stores_tokens(feature, table))
        for i, error in broken.items():
            failures[i].append(failure(feature.name, uris[i], "encode", error))
        for field, column in zip(feature.fields(), columns, strict=True):
            table = put(table, field.name, column)
        return table.drop_columns([n for n in table.schema.names if n.startswith(f"{feature.name}/")])

    def _stores_tokens(self, feature: BoundFeature, table: pa.Table) -> list[bool]:
        """False where tokens of an untimed text or image stand in window 0 already."""
        if self.config.window.repeat_tokens or feature.timed:
            return [True] * len(table)
        alone = [w == 0 for w in table["window"].to_pylist()]
        if feature.modality == "image":
            return alone
        timed, start = table["text_timed"].to_pylist(), table["text_from"].to_pylist()
        return [one or bool(t) or s is not None for one, t, s in zip(alone, timed, start, strict=True)]

    def _columns(
        self, feature: BoundFeature, rows: list[Encoded | None], tokens_stand: list[bool]
    ) -> tuple[list[pa.Array], dict[int, SampleError]]:
        """The stored columns, and the rows whose values cannot be stored (all their columns null)."""
        broken: dict[int, SampleError] = {}
        vectors: dict[str, list[np.ndarray | None]] = {}
        here = [i for i, row in enumerate(rows) if row is not None]
        if feature.emits("embedding"):
            pooled = [row for row in rows if row is not None]
            projected = self.heads[feature.name].project(pooled) if pooled else np.zeros((0, feature.dim or 0))
            vectors["embedding"] = [None] * len(rows)
            for i, vector in zip(here, projected, strict=True):
                vectors["embedding"][i] = vector
        for part in ("tokens", "prefix_tokens", "token_ids"):
            if feature.emits(part):
                vectors[part] = [
                    None if row is None or not tokens_stand[i] else getattr(row, part) for i, row in enumerate(rows)
                ]
        for part, values in vectors.items():
            dtype = np.dtype(feature.config.store.embedding if part == "embedding" else feature.token_dtype)
            if part == "token_ids" or (part == "embedding" and unstorable(projected, dtype) is None):
                continue
            for i, value in enumerate(values):
                if value is not None and i not in broken and value.dtype != np.float16:  # those are finite
                    problem = unstorable(value, dtype)
                    if problem is not None:
                        broken[i] = problem
        keep = [None if i in broken else row for i, row in enumerate(rows)]
        columns = []
        for field in feature.fields():
            part = field.name.removeprefix(f"{feature.name}_")
            if part in vectors:
                values = [None if i in broken else value for i, value in enumerate(vectors[part])]
                if part in ("tokens", "prefix_tokens"):
                    inner = field.type.value_type
                    columns.append(vector_list_column(values, inner.value_type, inner.list_size))
                else:
                    columns.append(list_column(values, field.type.value_type))
            else:
                name = "grid" if part == "grid" else "times_s"
                shown = [None if row is None or not tokens_stand[i] else row for i, row in enumerate(keep)]
                columns.append(list_column(_arrays(shown, name), field.type.value_type))
        return columns, broken


def _check_device(feature: BoundFeature, error: Exception) -> None:
    """Raises ``DeviceFailed`` if every later row would fail too."""
    if device_failed(error):
        raise DeviceFailed(
            f"features.{feature.name}: the device failed ({describe(error)}): run again to continue; "
            "if it fails there again, try encoder.device: cpu, which names the row",
            describe(error),
        ) from error


def _arrays(rows: Sequence[Encoded | None], name: str) -> list[np.ndarray | None]:
    values = [None if row is None else getattr(row, name) for row in rows]
    return [None if value is None else np.asarray(value) for value in values]


def unstorable(values: np.ndarray, dtype: np.dtype) -> SampleError | None:
    """Why ``values`` cannot be stored as ``dtype``: not finite, or too large for it."""
    most = float(np.finfo(np.float16 if dtype == np.float16 else np.float32).max)
    if not values.size or (float(values.min()) >= -most and float(values.max()) <= most):  # false of NaN too
        return None
    if not np.isfinite(values).all():
        return SampleError(
            "nan", f"the encoder returned {int((~np.isfinite(values)).sum())} values that are not finite"
        )
    if dtype == np.float16 and values.size:
        largest = float(np.abs(values).max())
        if largest > float(np.finfo(np.float16).max):
            return SampleError("overflow", f"{largest:.6g} does not fit float16: store it as float32")
    return None


def _inputs(feature: BoundFeature, table: pa.Table) -> tuple[list[ModelInputs], list[int]]:
    """Every row's inputs, and per row the first row of the table with the same media (-1: none).

    An untimed text or image belongs to every window of its sample; it is encoded once per table.
    """
    prefix = f"{feature.name}/"
    names = [n.removeprefix(prefix) for n in table.schema.names if n.startswith(prefix)]
    arrays = {name: unpack(table[input_column(feature.name, name)]) for name in names}
    times = arrays.pop(TIMES, [None] * len(table))
    prepared = [
        ModelInputs({name: value for name, rows in arrays.items() if (value := rows[i]) is not None}, times[i])
        for i in range(len(table))
    ]
    ids, windows = table["sample_id"].to_pylist(), table["window"].to_pylist()
    timed, starts = table["text_timed"].to_pylist(), table["text_from"].to_pylist()
    seen: dict[tuple[str, int | None], int] = {}
    first = []
    for i, row in enumerate(prepared):
        if not row.inputs:
            first.append(-1)
            continue
        own = feature.timed or (feature.modality == "text" and (timed[i] or starts[i] is not None))
        first.append(seen.setdefault((ids[i], windows[i] if own else None), i))
    return prepared, first
