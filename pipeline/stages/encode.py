"""Encodes and projects: rows lose the encoders' inputs and gain the columns that are stored."""

from __future__ import annotations

import sys
import time
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.arrow import unpack
from pipeline.core.errors import DeviceFailed, SampleError, describe, device_failed
from pipeline.encoders.base import Encoded, Encoder
from pipeline.heads.base import Head
from pipeline.sandbox import StageContext
from pipeline.stages._encoded_columns import stored_columns
from pipeline.stages.decode import TIMES, input_column
from pipeline.stages.rows import Failure, add_failures, add_meter, failure, put
from pipeline.tokenizers.base import ModelInputs

CALLS_ON_GPU = 3
"""Concurrent calls of an `EncodeStage` on a GPU: the host unpacks and packs some tables while the device computes."""

_SWITCH_INTERVAL_S = 5e-4
"""Python's switch interval on a GPU. A call releases the GIL for each copy to or from the device. With Python's default
of 5 ms, most of the call's time goes into getting it back."""


class RowJournal(Protocol):
    """Records each row before it is encoded by itself.

    ``begin_row`` raises ``SampleError`` for a row that must not be tried; ``end_work`` records that no row is being
    encoded.
    """

    def begin_row(self, row: int, feature: str, sample_id: str, window: int) -> None: ...

    def end_work(self) -> None: ...


class EncodeStage:
    """Maps rows with inputs to rows with stored columns; holds the encoders of some features.

    Several threads may call it at a time, unless one passes a journal.

    Args:
        config: the checked config.
        features: the features to encode.
        threads: CPU threads of torch.
    """

    context = StageContext()
    """Set by a worker process; no task of encoding is guarded."""

    def __init__(self, config: PipelineConfig, features: tuple[BoundFeature, ...], threads: int = 1) -> None:
        self.config = config
        self.features = features
        self.threads = threads
        self.encoders: dict[str, Encoder] = {}
        self.heads: dict[str, Head] = {}

    def import_code(self) -> None:
        """Imports what `setup` needs, and loads no weights."""
        for feature in self.features:
            feature.encoder().import_code()

    def setup(self) -> None:
        """Loads the encoders and heads. Raises what they raise."""
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
        if torch := sys.modules.get("torch"):  # takes seconds to import, and not every encoder needs it
            torch.set_num_threads(self.threads)
            if torch.cuda.is_initialized():
                torch.ones(8, device="cuda").sum().item()  # a broken device fails here, where no row can be blamed
                sys.setswitchinterval(_SWITCH_INTERVAL_S)

    def close(self) -> None:
        """Drops the models."""
        self.encoders.clear()
        self.heads.clear()

    def __call__(self, table: pa.Table, journal: RowJournal | None = None) -> pa.Table:
        """Maps rows to finished rows. What an encoder raises is a failure of the row.

        Args:
            table: rows with inputs.
            journal: given for a table at which a process died: its rows are encoded one by one.

        Raises:
            DeviceFailed: every later row would fail too.
        """
        failures: list[list[Failure]] = [[] for _ in range(len(table))]
        encode_s = np.zeros(len(table))
        for feature in self.features:
            started = time.perf_counter()
            rows = self._encode(feature, table, journal)
            used = [i for i, row in enumerate(rows) if row is not None]
            table = self._store(feature, table, rows, failures)
            if used:
                encode_s[used] += (time.perf_counter() - started) / len(used)
        return add_failures(add_meter(table, "encode_s", encode_s), failures)

    def _encode(
        self, feature: BoundFeature, table: pa.Table, journal: RowJournal | None
    ) -> list[Encoded | SampleError | Exception | None]:
        """Returns what the encoder returned or raised for each row; None if the row has no inputs."""
        inputs, first_rows = _inputs(feature, table)
        todo = [i for i in sorted(set(first_rows)) if i >= 0]
        rows = [inputs[i] for i in todo]
        want_tokens = feature.emits("tokens", "prefix_tokens", "token_ids")
        results: dict[int, Encoded | SampleError | Exception] = {}
        if journal is not None:
            ids, windows = table["sample_id"].to_pylist(), table["window"].to_pylist()
            for i in todo:
                results[i] = self._encode_journaled(journal, feature, inputs[i], want_tokens, i, ids[i], windows[i])
            journal.end_work()
            return [results[i] if i >= 0 else None for i in first_rows]
        try:
            results = dict(zip(todo, self.encoders[feature.name].encode(rows, want_tokens), strict=True))
        except Exception as error:  # only the rows that cause it may fail: encode each by itself
            _check_device(feature, error)
            if len(rows) == 1:
                results = {todo[0]: error}
            else:
                results = {i: self._encode_one(feature, inputs[i], want_tokens) for i in todo}
        return [results[i] if i >= 0 else None for i in first_rows]

    def _encode_one(
        self, feature: BoundFeature, row: ModelInputs, want_tokens: bool
    ) -> Encoded | SampleError | Exception:
        try:
            return self.encoders[feature.name].encode([row], want_tokens)[0]
        except Exception as error:  # becomes the row's failure
            _check_device(feature, error)
            return error

    def _encode_journaled(
        self,
        journal: RowJournal,
        feature: BoundFeature,
        row: ModelInputs,
        want_tokens: bool,
        number: int,
        sample_id: str,
        window: int,
    ) -> Encoded | SampleError | Exception:
        try:
            journal.begin_row(number, feature.name, sample_id, window)
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
        """Returns ``table`` with the feature's stored columns instead of its inputs. Appends to ``failures``."""
        uris = table[f"{feature.modality}_uri"].to_pylist()
        encoded: list[Encoded | None] = [None] * len(rows)
        for i, row in enumerate(rows):
            if isinstance(row, Encoded):
                encoded[i] = row
            elif row is not None:
                failures[i].append(failure(feature.name, uris[i], "encode", row))
        head = self.heads.get(feature.name)
        columns, errors = stored_columns(feature, head, encoded, self._stores_tokens(feature, table))
        for i, error in errors.items():
            failures[i].append(failure(feature.name, uris[i], "encode", error))
        for field, column in zip(feature.fields(), columns, strict=True):
            table = put(table, field.name, column)
        return table.drop_columns([name for name in table.schema.names if name.startswith(f"{feature.name}/")])

    def _stores_tokens(self, feature: BoundFeature, table: pa.Table) -> list[bool]:
        """Returns for each row whether it stores its tokens: those of untimed media are stored in window 0 only."""
        if self.config.window.repeat_tokens or feature.timed:
            return [True] * len(table)
        in_first_window = [window == 0 for window in table["window"].to_pylist()]
        if feature.modality == "image":
            return in_first_window
        timed, starts = table["text_timed"].to_pylist(), table["text_from"].to_pylist()
        return [
            first or bool(has_times) or start is not None
            for first, has_times, start in zip(in_first_window, timed, starts, strict=True)
        ]


def _check_device(feature: BoundFeature, error: Exception) -> None:
    """Raises ``DeviceFailed`` if every later row would fail too."""
    if device_failed(error):
        raise DeviceFailed(
            f"features.{feature.name}: the device failed ({describe(error)}): run again to continue; "
            "if it fails there again, try encoder.device: cpu, which names the row",
            describe(error),
        ) from error


def _inputs(feature: BoundFeature, table: pa.Table) -> tuple[list[ModelInputs], list[int]]:
    """Returns the inputs of each row, and for each row the first row of the table with the same media (-1: no inputs).

    An untimed text or image belongs to all windows of its sample; it is encoded once per table.
    """
    prefix = f"{feature.name}/"
    names = [name.removeprefix(prefix) for name in table.schema.names if name.startswith(prefix)]
    arrays = {name: unpack(table[input_column(feature.name, name)]) for name in names}
    times = arrays.pop(TIMES, [None] * len(table))
    inputs = [
        ModelInputs({name: value for name, rows in arrays.items() if (value := rows[i]) is not None}, times[i])
        for i in range(len(table))
    ]
    ids, windows = table["sample_id"].to_pylist(), table["window"].to_pylist()
    timed, starts = table["text_timed"].to_pylist(), table["text_from"].to_pylist()
    seen: dict[tuple[str, int | None], int] = {}
    first_rows = []
    for i, row in enumerate(inputs):
        if not row.inputs:
            first_rows.append(-1)
            continue
        differs = feature.timed or (feature.modality == "text" and (timed[i] or starts[i] is not None))
        first_rows.append(seen.setdefault((ids[i], windows[i] if differs else None), i))
    return inputs, first_rows
