"""Fetch, decode and tokenize: each row gains the arrays that its features' encoders read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import decoders, sources
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.arrow import pack
from pipeline.core.errors import SampleError, StageName
from pipeline.core.media import MODALITIES, FramesRequest, Media, Request, Text, WaveformRequest
from pipeline.decoders import OpenMedia, open_media
from pipeline.sandbox import Guard, Task, unguarded
from pipeline.stages.rows import Failure, add_failures, add_meter, failure, put
from pipeline.storage.blob import Blob
from pipeline.storage.roots import AllowedRoots
from pipeline.tokenizers.base import ModelInputs, Tokenizer

TIMES = "times"
_READ = (
    *("sample_id", "window", "start_s", "end_s", "inline_text", "text_timed", "text_from", "text_to", "carry_file"),
    *(f"{modality}_uri" for modality in MODALITIES),
)
"""Columns that decoding reads."""


def input_column(feature: str, name: str) -> str:
    """Column of one input array of a feature, between decoding and encoding."""
    return f"{feature}/{name}"


@dataclass
class _Cost:
    decode_s: float = 0.0
    tokenize_s: float = 0.0
    bytes_read: float = 0.0
    decoded: float = 0.0


@dataclass
class Decoded:
    """One row: what its encoders read, by feature (None: nothing, or it failed); its failures; what it cost."""

    inputs: dict[str, ModelInputs | None] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    cost: _Cost = field(default_factory=_Cost)


class DecodeStage:
    """Maps rows to rows with ``<feature>/<input>`` columns. One row in, one row out."""

    def __init__(
        self, config: PipelineConfig, features: tuple[BoundFeature, ...], carried: frozenset[str] = frozenset()
    ) -> None:
        """``carried``: names of features that are not computed where a row of another version has them."""
        self.config = config
        self.allowed_roots = sources.build(config.source).allowed_roots()
        self.features = features
        self.carried = carried
        self.tokenizers: dict[str, Tokenizer] = {}
        self.guard: Guard = unguarded

    def setup(self) -> None:
        decoders.load({feature.modality for feature in self.features}, self.config.decoders)
        for feature in self.features:
            tokenizer = feature.tokenizer()
            tokenizer.setup()
            self.tokenizers[feature.name] = tokenizer

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = list(self.each(table.select(_READ).to_pylist()))
        before = pc.list_value_length(table["failures"]).fill_null(0).to_pylist()
        planned = [sum(one is not None for one in row.inputs.values()) + len(row.failures) for row in rows]
        table = put(table, "cells", pa.array(np.add(before, planned), pa.int32()))
        for feature in self.features:
            table = _with_inputs(table, feature.name, [row.inputs[feature.name] for row in rows])
        for name in ("decode_s", "tokenize_s", "bytes_read", "decoded"):
            table = add_meter(table, name, [getattr(row.cost, name) for row in rows])
        return add_failures(table, [row.failures for row in rows])

    def each(self, rows: Iterable[dict[str, Any]]) -> Iterator[Decoded]:
        """Rows of `stages.rows.ROWS`, as values, one after the other; those of one sample stand together."""
        with _MediaCache(self.config, self.allowed_roots, self.guard) as opener:
            for opener.number, row in enumerate(rows):
                decoded = Decoded()
                opener.cost = decoded.cost
                for feature in self.features:
                    uri = row[f"{feature.modality}_uri"]
                    inline = feature.modality == "text" and row["inline_text"] is not None
                    done = None
                    if (uri is not None or inline) and not self._is_skipped(feature, row):
                        done = self._prepare(feature, row, opener)
                    if isinstance(done, Failure):
                        decoded.failures.append(done)
                        done = None
                    decoded.inputs[feature.name] = done
                yield decoded

    def _is_skipped(self, feature: BoundFeature, row: dict[str, Any]) -> bool:
        """What is carried over; and tokens of untimed media, which stand in window 0 only: a feature of nothing else
        has no cell in the others."""
        if feature.name in self.carried and row["carry_file"] is not None:
            return True
        only_tokens = not feature.emits("embedding") and not self.config.window.repeat_tokens
        return only_tokens and row["window"] > 0 and _part(feature, row) is None

    def _prepare(self, feature: BoundFeature, row: dict[str, Any], opener: _MediaCache) -> ModelInputs | Failure | None:
        """One cell; None if the window holds nothing of the modality. Untimed media are decoded once a sample."""
        tokenizer = self.tokenizers[feature.name]
        uri = row[f"{feature.modality}_uri"]
        try:
            media = opener.decode(tokenizer.request(), feature, row)
        except _NoWords:
            return None
        except Exception as error:  # whatever a decoder raises, it costs this cell and no more
            return failure(feature.name, uri, "decode", error)
        started = time.perf_counter()
        try:
            key = ("prepared", feature.name, _part(feature, row))
            work = opener.work("tokenize", feature, row)
            return cast(ModelInputs, opener.remember(key, work, lambda: tokenizer.tokenize(media)))
        except Exception as error:  # the same
            return failure(feature.name, uri, "tokenize", error)
        finally:
            opener.cost.tokenize_s += time.perf_counter() - started


class _NoWords(Exception):
    """A window between the segments of a timed text."""


def _part(feature: BoundFeature, row: dict[str, Any]) -> int | None:
    """The window, if it decides what is decoded; None for untimed media, the same in every window."""
    if feature.modality == "text":
        return row["window"] if row["text_timed"] or row["text_from"] is not None else None
    return row["window"] if feature.timed else None


class _MediaCache:
    """The open files and decoded media of the sample at hand, so that nothing is opened or decoded twice."""

    def __init__(self, config: PipelineConfig, allowed_roots: AllowedRoots, guard: Guard) -> None:
        self.config, self.allowed_roots, self.guard = config, allowed_roots, guard
        self.number = 0
        self.sample: str | None = None
        self.window: int | None = None
        self.open: dict[str, tuple[Task, OpenMedia]] = {}
        self.known: dict[tuple[Any, ...], Any] = {}
        self.cost = _Cost()

    def __enter__(self) -> _MediaCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def decode(self, request: Request, feature: BoundFeature, row: dict[str, Any]) -> Media:
        """What ``request`` asks of the row's media. Raises what the decoder raises, again if asked again."""
        if row["sample_id"] != self.sample:
            self._close()
            self.sample = row["sample_id"]
        if row["window"] != self.window:  # what only an earlier window needed goes
            self.known = {key: value for key, value in self.known.items() if key[-1] is None}
            self.window = row["window"]
        uri = row[f"{feature.modality}_uri"]
        key = (request, uri, feature.modality, _part(feature, row))
        started = time.perf_counter()
        try:
            work = self.work("decode", feature, row)
            return cast(Media, self.remember(key, work, lambda: self._decode(request, feature, row, work)))
        finally:
            self.cost.decode_s += time.perf_counter() - started

    def work(self, step: StageName, feature: BoundFeature, row: dict[str, Any]) -> Task:
        source = row[f"{feature.modality}_uri"] or row["sample_id"]
        return Task(self.number, step, feature.name, source, _part(feature, row))

    def remember(self, key: tuple[Any, ...], work: Task, compute: Callable[[], Any]) -> Any:
        if key not in self.known:
            try:
                with self.guard(work):
                    self.known[key] = compute()
            except Exception as error:  # kept, so that the second asker hears the same
                self.known[key] = error
        value = self.known[key]
        if isinstance(value, Exception):
            raise value
        return value

    def _decode(self, request: Request, feature: BoundFeature, row: dict[str, Any], work: Task) -> Media:
        start, end, uri = row["start_s"], row["end_s"], row[f"{feature.modality}_uri"]
        if uri is None:
            self.config.decoders.text.check_length(row["inline_text"])
            return self._slice(Text(row["inline_text"]), row)
        media = self._opened(uri, feature, work)
        self.cost.decoded += 1
        if feature.modality == "text":
            return self._slice(media.text(start, end) if row["text_timed"] else media.text(None, None), row)
        if feature.modality == "image":  # needed once: what is decoded is known for the whole sample
            del self.open[uri]
            with media:
                return media.image()
        if isinstance(request, FramesRequest):
            return media.frames(request.sampling, start, end)
        assert isinstance(request, WaveformRequest)
        return media.waveform(request.sample_rate, start, end)

    def _slice(self, text: Text, row: dict[str, Any]) -> Text:
        if row["text_from"] is not None:
            text = Text(text.text[row["text_from"] : row["text_to"]])
        if not text.text.strip():
            if row["text_timed"]:
                raise _NoWords
            raise SampleError("empty", "no words in it")
        return text

    def _opened(self, uri: str, feature: BoundFeature, work: Task) -> OpenMedia:
        if uri not in self.open:
            blob = Blob(uri, self.allowed_roots)
            self.cost.bytes_read += blob.size()
            self.open[uri] = work, open_media(blob, feature.modality, self.config.decoders)
        return self.open[uri][1]

    def _close(self) -> None:
        for work, media in self.open.values():
            with self.guard(work):  # closing runs native code too: what opened the file answers for it
                media.close()
        self.open.clear()
        self.known.clear()
        self.window = None


def _with_inputs(table: pa.Table, feature: str, rows: list[ModelInputs | None]) -> pa.Table:
    names = sorted({name for row in rows if row is not None for name in row.inputs})
    for name in names:
        arrays = [None if row is None else row.inputs.get(name) for row in rows]
        table = put(table, input_column(feature, name), pack(arrays))
    if any(row is not None and row.times_s is not None for row in rows):
        times = [None if row is None or row.times_s is None else np.asarray(row.times_s, np.float64) for row in rows]
        table = put(table, input_column(feature, TIMES), pack(times))
    return table
