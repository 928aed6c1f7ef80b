"""Probe and cut: samples in, one row per window out. Only headers are read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import decoders, sources
from pipeline.config import bound
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import TRANSIENT_KINDS, SampleError
from pipeline.core.media import MODALITIES, MediaInfo, Modality, Span
from pipeline.core.schema import LISTING, METERS, ROLES
from pipeline.dataset.diff.columns import EXTRA
from pipeline.decoders import open_media
from pipeline.sandbox import Guard, Task, unguarded
from pipeline.stages import units, windows
from pipeline.stages.reuse import StoredTimes
from pipeline.stages.rows import FAILURE, ROWS, Failure, failure, failure_column
from pipeline.storage.blob import Blob

_WHOLE = {"start_s": None, "end_s": None, "text_from": None, "text_to": None}
_MAX_COPIED_BYTES = 128 << 20
"""Texts, ids and the corpus's own columns of one sample, summed over its windows: the row of each holds a copy."""
_BY_LOAD = (*TRANSIENT_KINDS, "timeout", "crash", "internal")
"""Kinds of failure that another run of the same bytes may not have."""


@dataclass
class _Found:
    """What the files of one sample hold: which file supplies each modality, and over which time."""

    uris: dict[Modality, str | None] = field(default_factory=dict)
    spans: dict[Modality, Span | None] = field(default_factory=dict)
    words: tuple[Span, ...] = ()
    failures: list[Failure] = field(default_factory=list)

    def last(self) -> Span | None:
        """The stream that the sample ends with: its picture or sound, and only without them its words."""
        timed = {modality: span for modality, span in self.spans.items() if span is not None}
        media = [span for modality, span in timed.items() if modality != "text"]
        return max(media, key=lambda span: span.end_s, default=timed.get("text"))

    def present(self, start_s: float | None, end_s: float | None) -> set[Modality]:
        """The modalities of which something lies in ``[start_s, end_s)``; those without times lie in every window."""
        here = {modality for modality, span in self.spans.items() if span is None}
        if start_s is None or end_s is None:
            return here
        for modality, span in self.spans.items():
            if span is not None and span.overlaps(start_s, end_s):
                starts, latest = self.word_times
                begun = int(np.searchsorted(starts, end_s)) if modality == "text" else 0
                if modality != "text" or (begun and latest[begun - 1] > start_s):
                    here.add(modality)
        return here

    def of(self, windows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], set[Modality]]]:
        """Those of the windows in which something lies, and what; the first where there is nothing in any."""
        parts = [(times, self.present(times["start_s"], times["end_s"])) for times in windows]
        return [one for one in parts if one[1]] or parts[:1]

    @cached_property
    def word_times(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts of the words, ascending, and where the last of those begun by then ends; seconds."""
        words = sorted(self.words, key=lambda span: span.start_s)
        return np.array([s.start_s for s in words]), np.maximum.accumulate([s.end_s for s in words] or [0.0])


def _left(rows: list[dict[str, Any]], done: frozenset[int], failed: bool) -> list[dict[str, Any]]:
    """The rows that are still to be computed; where none is left, one that only accounts for the sample or tells that
    its file failed, now."""
    for row in rows:
        row["windows"] = len(rows)
    left = [row for row in rows if row["window"] not in done]
    nothing = {
        "window": 0 if failed else -1,
        "carry_file": None,
        "carry_position": None,
        "inline_text": None,
        **{f"{modality}_uri": None for modality in MODALITIES},
    }
    return left or [{**rows[0], **nothing}]


def _worth(info: MediaInfo) -> MediaInfo:
    """``info`` without streams that cover no time; a file of nothing else is ``empty``."""
    spans = {m: span for m, span in info.spans.items() if span is None or span.end_s > span.start_s}
    if not spans:
        raise SampleError("empty", f"no stream of this {info.format} covers any time")
    return replace(info, spans=spans)


class ReadPlanStage:
    """Maps tables that name units of the plan to the work itself."""

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, table: pa.Table) -> pa.Table:
        return units.read_unit(table)


class ProbeStage:
    """Maps a table of schema ``LISTING`` (+ passthrough + ``EXTRA``) to one of schema ``ROWS`` (+ passthrough).

    Args:
        carried_from: what the version read that columns are taken from, a part of what this one reads. Its windows are
            another cut of the same media where it read less, and only those of the same times are the same.
        stored_times: of that version's rows, where it was made by other rules of decoding.
        own_times: of the rows of the version that is written, which are computed once more after a failure.
    """

    def __init__(
        self,
        config: PipelineConfig,
        features: tuple[BoundFeature, ...],
        carried_from: frozenset[Modality] | None = None,
        stored_times: StoredTimes | None = None,
        own_times: StoredTimes | None = None,
    ) -> None:
        self.config = config
        self.allowed_roots = sources.build(config.source).allowed_roots()
        self.features = features
        self.modalities = bound.wanted(config)
        self.carried_from = self.modalities if carried_from is None else carried_from
        self.stored_times, self.own_times = stored_times, own_times
        self.roles = bound.roles_to_open(self.modalities)
        self.cutter: Any = None
        self.guard: Guard = unguarded

    def setup(self) -> None:
        decoders.load({feature.modality for feature in self.features}, self.config.decoders, decode=False)
        name = self.config.text_windows()
        if name is not None:
            self.cutter = next(f for f in self.features if f.name == name).tokenizer()
            self.cutter.setup()

    def __call__(self, table: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = []
        failures: list[list[Failure]] = []
        samples: list[int] = []
        extra = [name for name in EXTRA.names if name in table.schema.names]
        copied = table.drop_columns([*LISTING.names, *extra])
        for number, sample in enumerate(table.select([*LISTING.names, *extra]).to_pylist()):
            for row, failed in self._rows(number, sample, copied.slice(number, 1).nbytes):
                rows.append(row)
                failures.append(failed)
                samples.append(number)
        done = pa.Table.from_pylist(rows, schema=pa.schema([f for f in ROWS if f.name != "failures"]))
        done = done.append_column(pa.field("failures", pa.list_(FAILURE)), failure_column(failures)).select(ROWS.names)
        passthrough = copied.take(pa.array(samples, pa.int64()))
        return pa.Table.from_arrays(
            [*done.columns, *passthrough.columns], schema=pa.schema([*done.schema, *passthrough.schema])
        )

    def _rows(
        self, number: int, sample: dict[str, Any], copied_bytes: int = 0
    ) -> list[tuple[dict[str, Any], list[Failure]]]:
        """The windows of sample ``number``. Always at least one row, so that every sample is accounted for.

        Args:
            copied_bytes: of the corpus's own columns, which each window's row holds.
        """
        started = time.perf_counter()
        found = self._probe(number, sample)
        base: dict[str, Any] = {name: sample[name] for name in ("sample_id", "source_version", "inline_text")}
        base |= {f"meter_{name}": 0.0 for name in METERS} | {"cells": 0, "final": False, "promised": 0}
        base["replaces"] = bool(sample.get("replaces"))
        text = found.spans.get("text", ...)
        base["text_timed"] = isinstance(text, Span)
        rows: list[dict[str, Any]] = []
        windows = self._windows(number, found, sample)
        if self._copies(windows, sample, copied_bytes) > _MAX_COPIED_BYTES:
            each = self._copies(windows, sample, copied_bytes) // len(windows)
            error = SampleError("limit", f"{len(windows)} windows would hold {each} bytes of texts and columns each")
            self._refuse(found, {*found.spans}, error)
            windows = [_WHOLE]
        stored = {one["window"]: one for one in sample.get("carry") or ()}
        parts = found.of(windows)
        numbers, carry = list(range(len(parts))), stored
        if base["replaces"] and stored and found.failures and self.own_times is not None:
            parts, numbers, carry = self._with_stored(found, parts, stored, frozenset(sample["windows_done"] or ()))
        for window, (times, present) in zip(numbers, parts, strict=True):
            uris = {f"{m}_uri": found.uris.get(m) if m in present else None for m in MODALITIES}
            inline = sample["inline_text"] if "text" in present and found.uris.get("text") is None else None
            if inline is not None and times["text_from"] is not None:
                inline = inline[times["text_from"] : times["text_to"]]
                times = {**times, "text_from": 0, "text_to": len(inline)}
            rows.append({**base, **uris, **times, "inline_text": inline, "window": window})
        tried: dict[int, list[dict[str, Any]]] = {}
        for one in sample.get("attempts") or ():
            tried.setdefault(one["window"], []).append(one)
        if self.own_times is None:
            carry = self._carry(found, rows, stored)
        for row in rows:
            old = carry.get(row["window"], {})
            row |= {"carry_file": old.get("file"), "carry_position": old.get("position")}
            row["attempts"] = tried.get(row["window"], []) if sample.get("attempts") else None
        done = frozenset(sample.get("windows_done") or ())
        # What the bytes decide was told with window 0, when that was computed. What load decides may be new, and so is
        # what did not fail before.
        nothing_left = all(row["window"] in done for row in rows)
        before = (
            {one["feature"] for one in tried.get(0, ())}
            if sample.get("attempts")
            else {f.feature for f in found.failures}
        )
        told = [
            one
            for one in found.failures
            if 0 not in done or nothing_left or one.kind in _BY_LOAD or one.feature not in before
        ]
        todo = _left(rows, done, bool(told))
        todo[-1] |= {"final": True, "promised": len(todo) if todo[-1]["window"] >= 0 else 0}
        todo[0]["meter_probe_s"] = time.perf_counter() - started
        return [(row, told if i == 0 else []) for i, row in enumerate(todo)]

    def _with_stored(
        self,
        found: _Found,
        parts: list[tuple[dict[str, Any], set[Modality]]],
        stored: dict[int, Any],
        done: frozenset[int],
    ) -> tuple[list[tuple[dict[str, Any], set[Modality]]], list[int], dict[int, Any]]:
        """The windows of a sample that is tried again and of which something cannot be read: the cut may be by a file
        that cannot be opened now, so windows that the dataset has rows of stay. What can be read is computed in them.

        Args:
            parts: windows as far as they are known now, and what lies in each.
            stored: window -> where the dataset has its row.
            done: windows that are not computed; they keep their numbers, and so do the others then.

        Returns:
            parts, the number of each, and number -> where the dataset has its row.
        """
        assert self.own_times is not None
        times = {window: self.own_times.of(one["file"], one["position"]) for window, one in sorted(stored.items())}
        window_at = {start: window for window, (start, _) in times.items() if start is not None}
        untimed = parts[0][0]["start_s"] is None
        if not window_at:
            if not untimed:
                return parts, list(range(len(parts))), {0: stored[0]} if 0 in stored else {}
            # parts of a text, which another cut replaces as soon as it can be read
            more = [] if "text" in found.spans else [window for window in stored if window >= len(parts)]
            whole = ({**_WHOLE}, found.present(None, None))
            return [*parts, *[whole] * len(more)], [*range(len(parts)), *more], stored
        merged: dict[float | None, tuple[dict[str, Any], set[Modality], int]] = {}
        if not untimed:
            merged = {one["start_s"]: (one, present, number) for number, (one, present) in enumerate(parts)}
        elif 0 not in stored and 0 not in done:
            merged[None] = ({**_WHOLE}, found.present(None, None), 0)
        for window, (start, end) in times.items():
            known = merged.get(start)
            if known is None or (end is not None and known[0]["end_s"] < end):
                known = ({**_WHOLE, "start_s": start, "end_s": end}, found.present(start, end), window)
            merged[start] = (*known[:2], window)
        ordered = sorted(merged.items(), key=lambda item: -1.0 if item[0] is None else item[0])
        if len({number for _, (*_, number) in ordered}) < len(ordered):  # other windows have something in them now
            if done:
                ordered = [(start, one) for start, one in ordered if start in window_at]
            else:
                ordered = [(start, (*one[:2], number)) for number, (start, one) in enumerate(ordered)]
        carry = {one[2]: stored[window_at[start]] for start, one in ordered if start in window_at}
        return [one[:2] for _, one in ordered], [one[2] for _, one in ordered], carry

    @staticmethod
    def _copies(windows: list[dict[str, Any]], sample: dict[str, Any], copied_bytes: int) -> int:
        """Bytes that the rows of a sample repeat."""
        if len(windows) == 1:
            return 0
        cut = windows[0]["text_from"] is not None  # each row has its part of the text
        text = "" if cut else sample["inline_text"] or ""
        strings = (text, sample["sample_id"], sample["source_version"], *(sample[f"{r}_uri"] or "" for r in ROLES))
        return len(windows) * (copied_bytes + sum(map(len, strings)))

    def _carry(self, found: _Found, rows: list[dict[str, Any]], carry: dict[int, Any]) -> dict[int, Any]:
        """``carry`` by number of our windows, where it is by those of the version that it is taken from."""
        if carry and self.stored_times is not None:
            times = {}
            for number, old in carry.items():
                start, end = self.stored_times.of(old["file"], old["position"])
                times[start, end, number if start is None else None] = old  # without times a window has its number only
            keys = [(row["start_s"], row["end_s"], row["window"] if row["start_s"] is None else None) for row in rows]
            ours = ((row["window"], times.get(key)) for row, key in zip(rows, keys, strict=True))
            return {number: old for number, old in ours if old is not None}
        if not carry or self.carried_from == self.modalities:
            return carry
        theirs = _Found(spans={m: span for m, span in found.spans.items() if m in self.carried_from}, words=found.words)
        last = theirs.last()
        if last is None and self.cutter is not None and "text" in theirs.spans:
            return {}  # perhaps cut by a tokenizer there
        try:
            cut = theirs.of(self._by_time(last))
        except SampleError:
            return {}
        by_time = {(one["start_s"], one["end_s"]): carry.get(number) for number, (one, _) in enumerate(cut)}
        here = ((row["window"], by_time.get((row["start_s"], row["end_s"]))) for row in rows)
        return {number: old for number, old in here if old is not None}

    def _by_time(self, last: Span | None) -> list[dict[str, Any]]:
        """Windows up to the end of a sample's last stream. Raises ``SampleError`` for too many."""
        cuts = windows.cut(last.end_s, self.config.window, last.tick_s) if last is not None else []
        return [{**_WHOLE, "start_s": start, "end_s": end} for start, end in cuts] or [_WHOLE]

    def _windows(self, number: int, found: _Found, sample: dict[str, Any]) -> list[dict[str, Any]]:
        last = found.last()
        if last is not None:
            try:
                return self._by_time(last)
            except SampleError as error:
                self._refuse(found, {m for m, span in found.spans.items() if span is not None}, error)
                return [_WHOLE]
        if self.cutter is not None and set(found.spans) == {"text"}:
            try:
                with self.guard(Task(number, "probe", "text", found.uris["text"] or sample["sample_id"])):
                    cuts_of_text = self._text_windows(found, sample)
                return [{**_WHOLE, "text_from": a, "text_to": b} for a, b in cuts_of_text] or [_WHOLE]
            except Exception as error:  # a tokenizer too may raise anything
                self._refuse(found, {"text"}, error)
        return [_WHOLE]

    def _refuse(self, found: _Found, modalities: set[Modality], error: Exception) -> None:
        for modality in sorted(modalities):
            found.failures.extend(self._failed({modality}, found.uris[modality], error))
            del found.spans[modality]

    def _text_windows(self, found: _Found, sample: dict[str, Any]) -> list[tuple[int, int]]:
        uri = found.uris["text"]
        if uri is None:
            self.config.decoders.text.check_length(sample["inline_text"])
            spans = list(self.cutter.cut(sample["inline_text"]))
        else:
            with open_media(Blob(uri, self.allowed_roots), "text", self.config.decoders) as media:
                spans = list(self.cutter.cut(media.text(None, None).text))
        if len(spans) > (most := self.config.window.max_windows):
            raise SampleError("limit", f"its text makes {len(spans)} windows, more than {most}: see window.max_windows")
        return spans

    def _probe(self, number: int, sample: dict[str, Any]) -> _Found:
        found = _Found()
        if sample["refused"] is not None:
            found.failures.append(failure(None, None, "probe", SampleError("invalid", sample["refused"])))
            return found
        opened: list[tuple[str, str, MediaInfo]] = []
        broken: list[tuple[str, str, Exception]] = []
        inline = sample["inline_text"] is not None and "text" in self.modalities
        if inline:
            found.uris["text"], found.spans["text"] = None, None
        alone = sum(sample[f"{role}_uri"] is not None for role in self.roles) == 1
        for role in ROLES:
            uri = sample[f"{role}_uri"]
            if uri is None or role not in self.roles or (role == "text" and inline):
                continue
            hint = None if role == "other" else role
            try:
                with (
                    self.guard(Task(number, "probe", role, uri)),
                    open_media(Blob(uri, self.allowed_roots), hint, self.config.decoders) as media,  # type: ignore[arg-type]
                ):
                    if not alone:  # else one bad picture would fail in each window of what stands beside it
                        media.check()
                    opened.append((role, uri, _worth(media.info)))
            except Exception as error:  # a decoder may raise anything; the sample goes on without this file
                broken.append((role, uri, error))
        failed = {modality for modality in self.modalities if modality in {role for role, _, _ in broken}}
        for own in (True, False):  # a file that was named for a modality comes before one that also holds it
            for role, uri, info in opened:
                for modality, span in info.spans.items():
                    if modality in self.modalities - failed and (modality == role) is own:
                        found.uris.setdefault(modality, uri)
                        found.spans.setdefault(modality, span)
                        found.words = info.words if found.uris[modality] == uri and info.words else found.words
        for role, uri, cause in broken:
            served = {m for m in failed if m == role} or self._missed(found, {"audio"} if role == "video" else set())
            found.failures.extend(self._failed(served, uri, cause))
        for _, uri, info in opened:
            for modality in sorted(self._missed(found, set(info.unsupported)) - failed):
                coding = SampleError("unsupported", f"its {modality} is in a coding that FFmpeg does not know")
                found.failures.extend(self._failed({modality}, uri, coding))
                failed.add(modality)
        return found

    def _missed(self, found: _Found, modalities: set[Modality]) -> set[Modality]:
        """Those of ``modalities`` that some feature reads and no file supplies."""
        return (modalities & self.modalities) - set(found.spans)

    def _failed(self, modalities: set[Modality], uri: str | None, error: Exception) -> list[Failure]:
        names = [f.name for f in self.features if f.modality in modalities]
        return [failure(name, uri, "probe", error) for name in names] or [failure(None, uri, "probe", error)]
