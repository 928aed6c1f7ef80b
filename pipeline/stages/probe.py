"""Probes samples and cuts them: samples in, one row per window out. Reads only the headers of media."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pyarrow as pa

from pipeline import decoders
from pipeline.config import bound
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import TRANSIENT_KINDS, ConfigError, SampleError
from pipeline.core.media import Modality
from pipeline.core.schema import LISTING
from pipeline.dataset.diff.columns import EXTRA
from pipeline.sandbox import StageContext, Task
from pipeline.stages import units
from pipeline.stages._sample_media import MediaProber, SampleMedia, Times
from pipeline.stages._sample_windows import (
    WHOLE_SAMPLE,
    base_row,
    cut_by_time,
    match_by_cut,
    match_by_start,
    match_by_times,
    merge_stored,
    remaining_rows,
    repeated_bytes,
    window_row,
)
from pipeline.stages.reuse import StoredTimes
from pipeline.stages.rows import FAILURE_TYPE, ROWS, STORED_WINDOWS, Failure, failure_column

_MAX_COPIED_BYTES = 128 << 20
"""Limit for the texts, ids and passthrough columns of one sample, summed over its windows: each row has a copy."""
_UNSTABLE_KINDS = (*TRANSIENT_KINDS, "timeout", "crash", "internal")
"""Kinds of failure that another run with the same bytes may not have."""


class ReadPlanStage:
    """Maps tables that name units of the plan to the planned samples."""

    def setup(self) -> None:
        """Loads nothing."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Reads the units of a table."""
        return units.read_unit(table)


class ProbeStage:
    """Maps a table of schema ``LISTING`` (+ passthrough + ``EXTRA``) to one of schema ``ROWS`` (+ passthrough).

    Args:
        config: the checked config.
        features: the features of the run.
        reuse_modalities: the modalities that the version to reuse columns from has read, a subset of those of this
            run. If it is a proper subset, that version cut the same media differently: only windows with equal times
            are reused. None: the same modalities.
        stored_times: times of that version's rows, if it was decoded by other rules.
        own_times: times of the rows of the version that is written, which retries replace.
    """

    def __init__(
        self,
        config: PipelineConfig,
        features: tuple[BoundFeature, ...],
        reuse_modalities: frozenset[Modality] | None = None,
        stored_times: StoredTimes | None = None,
        own_times: StoredTimes | None = None,
    ) -> None:
        self.config = config
        self.features = features
        self.prober = MediaProber(config, features)
        self.modalities = bound.wanted(config)
        self.reuse_modalities = self.modalities if reuse_modalities is None else reuse_modalities
        self.stored_times, self.own_times = stored_times, own_times
        self.text_cutter: Any = None
        """The tokenizer that cuts texts into windows, if any."""
        self.context = StageContext()

    def import_code(self) -> None:
        """Imports what `setup` and the first row need, by setting this copy of the stage up. Raises what it raises."""
        self.setup()

    def setup(self) -> None:
        """Loads the decoders, and the tokenizer that cuts texts. Raises what they raise."""
        decoders.load({feature.modality for feature in self.features}, self.config.decoders, decode=False)
        name = self.config.text_windows()
        if name is not None:
            self.text_cutter = next(f for f in self.features if f.name == name).tokenizer()
            self.text_cutter.setup()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Maps a table. Each sample makes at least one row; what decoders raise is a failure of its first row."""
        rows: list[dict[str, Any]] = []
        failures: list[list[Failure]] = []
        samples: list[int] = []
        extra = [name for name in EXTRA.names if name in table.schema.names]
        copied = table.drop_columns([*LISTING.names, *extra])
        for number, sample in enumerate(table.select([*LISTING.names, *extra]).to_pylist()):
            for row, row_failures in self._rows(number, sample, copied.slice(number, 1).nbytes):
                rows.append(row)
                failures.append(row_failures)
                samples.append(number)
        probed = pa.Table.from_pylist(rows, schema=pa.schema([f for f in ROWS if f.name != "failures"]))
        probed = probed.append_column(pa.field("failures", pa.list_(FAILURE_TYPE)), failure_column(failures))
        probed = probed.select(ROWS.names)
        passthrough = copied.take(pa.array(samples, pa.int64()))
        return pa.Table.from_arrays(
            [*probed.columns, *passthrough.columns], schema=pa.schema([*probed.schema, *passthrough.schema])
        )

    def _rows(
        self, number: int, sample: dict[str, Any], copied_bytes: int = 0
    ) -> list[tuple[dict[str, Any], list[Failure]]]:
        """Returns the rows of a sample with their failures. At least one, so that each sample is accounted for.

        Args:
            number: index of the sample in its table.
            sample: the sample.
            copied_bytes: size of its passthrough columns, which each row copies.
        """
        started = time.perf_counter()
        media = self.prober.probe(number, sample, self.context)
        base = base_row(sample, media)  # before the cut, which may drop media
        found = media.windows_with_media(self._bounded_windows(number, media, sample, copied_bytes))
        done = frozenset(sample.get("windows_done") or ())
        stored = {position["window"]: position for position in sample.get("carry") or ()}
        numbers, reused = list(range(len(found))), stored
        is_retry = bool(sample.get("attempts"))
        if base["replaces"] and stored and self.own_times is not None:
            with suppress(ConfigError):  # a shard that cannot be read: KeepColumnsStage keeps nothing of it either
                if media.failures:
                    cuts_text = self.text_cutter is not None
                    found, numbers, reused = merge_stored(media, found, stored, done, self.own_times, cuts_text)
                else:
                    reused = match_by_start(found, stored, self.own_times)
        rows = [
            window_row(base, sample, media, window, times, present)
            for window, (times, present) in zip(numbers, found, strict=True)
        ]
        if self.own_times is None:
            reused = self._reused(media, rows, stored)
        attempts: dict[int, list[dict[str, Any]]] = {}
        for attempt in sample.get("attempts") or ():
            attempts.setdefault(attempt["window"], []).append(attempt)
        for row in rows:
            position = reused.get(row["window"], {})
            row |= {"carry_file": position.get("file"), "carry_position": position.get("position")}
            row["attempts"] = attempts.get(row["window"], []) if is_retry else None
            row[STORED_WINDOWS] = len(stored) + len(done) if is_retry else None
        failures = _new_failures(media.failures, rows, done, is_retry)
        todo = remaining_rows(rows, done, bool(failures))
        todo[-1] |= {"final": True, "promised": len(todo) if todo[-1]["window"] >= 0 else 0}
        todo[0]["meter_probe_s"] = time.perf_counter() - started
        todo[0] |= {f"meter_{name}": float(value) for name, value in media.reads.as_meters().items()}
        return [(row, failures if i == 0 else []) for i, row in enumerate(todo)]

    def _bounded_windows(
        self, number: int, media: SampleMedia, sample: dict[str, Any], copied_bytes: int
    ) -> list[Times]:
        """Returns the windows of a sample. Refuses all of its media if the rows would copy too many bytes."""
        cuts = self._windows(number, media, sample)
        repeated = repeated_bytes(cuts, sample, copied_bytes)
        if repeated <= _MAX_COPIED_BYTES:
            return cuts
        each = repeated // len(cuts)
        error = SampleError("limit", f"{len(cuts)} windows would hold {each} bytes of texts and columns each")
        self.prober.refuse(media, {*media.spans}, error)
        return [WHOLE_SAMPLE]

    def _reused(self, media: SampleMedia, rows: list[dict[str, Any]], stored: dict[int, Any]) -> dict[int, Any]:
        """Returns window of ``rows`` -> position of the stored row to reuse; ``stored`` is by window of its version."""
        if stored and self.stored_times is not None:
            # the other version may have cut a text by tokens that belongs to all windows here
            by_number = self.text_cutter is None or self.reuse_modalities == self.modalities
            return match_by_times(rows, stored, self.stored_times, by_number)
        if not stored or self.reuse_modalities == self.modalities:
            return stored
        spans = {modality: span for modality, span in media.spans.items() if modality in self.reuse_modalities}
        stored_media = SampleMedia(spans=spans, words=media.words)
        if stored_media.last_span() is None and self.text_cutter is not None and "text" in spans:
            return {}  # the other version may have cut the text by tokens
        return match_by_cut(rows, stored, stored_media, self.config.window)

    def _windows(self, number: int, media: SampleMedia, sample: dict[str, Any]) -> list[Times]:
        """Returns the windows of a sample. Refuses the media that cannot be cut."""
        last = media.last_span()
        if last is not None:
            try:
                return cut_by_time(last, self.config.window)
            except SampleError as error:
                self.prober.refuse(media, {m for m, span in media.spans.items() if span is not None}, error)
                return [WHOLE_SAMPLE]
        if self.text_cutter is not None and set(media.spans) == {"text"}:
            try:
                with self.context.guard(Task(number, "probe", "text", media.uris["text"] or sample["sample_id"])):
                    text_cuts = self.prober.text_windows(media, sample, self.text_cutter, self.context)
                return [{**WHOLE_SAMPLE, "text_from": start, "text_to": end} for start, end in text_cuts] or [
                    WHOLE_SAMPLE
                ]
            except Exception as error:  # a tokenizer may raise anything
                self.prober.refuse(media, {"text"}, error)
        return [WHOLE_SAMPLE]


def _new_failures(
    failures: list[Failure], rows: list[dict[str, Any]], done: frozenset[int], is_retry: bool
) -> list[Failure]:
    """Returns the failures of a sample that this run reports.

    A failure that the bytes of a file decide was reported with window 0, when that was computed. Failures of unstable
    kinds may be new, and so may all failures of a retry: its windows lose their old records.

    Args:
        failures: all failures of the sample.
        rows: all rows of the sample.
        done: windows that are not computed.
        is_retry: something of the sample failed before.
    """
    if is_retry or 0 not in done or all(row["window"] in done for row in rows):
        return failures
    return [one for one in failures if one.kind in _UNSTABLE_KINDS]
