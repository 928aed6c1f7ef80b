"""The open files and decoded media of one sample."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import SampleError, StageName
from pipeline.core.media import FramesRequest, Media, Request, Text, WaveformRequest
from pipeline.decoders import OpenMedia, open_media
from pipeline.sandbox import StageContext, Task
from pipeline.storage.blob import Blob
from pipeline.storage.ranges import ReadCost
from pipeline.storage.roots import AllowedRoots


@dataclass
class Cost:
    """What one row took; the names are those of meters."""

    decode_s: float = 0.0
    tokenize_s: float = 0.0
    bytes_read: float = 0.0
    requests: float = 0.0
    retries: float = 0.0
    decoded: float = 0.0

    def add_reads(self, reads: ReadCost) -> None:
        """Adds what reading a file took."""
        self.bytes_read += reads.bytes
        self.requests += reads.requests
        self.retries += reads.retries


class NoWords(Exception):
    """A window is between the segments of a timed text."""


def part_of(feature: BoundFeature, row: dict[str, Any]) -> int | None:
    """Returns the window number if decoding depends on it; None for untimed media, which are equal in all windows."""
    if feature.modality == "text":
        return row["window"] if row["text_timed"] or row["text_from"] is not None else None
    return row["window"] if feature.timed else None


class MediaCache:
    """The open files and decoded media of the current sample, so that nothing is opened or decoded twice.

    A context manager: it closes its files at the end.

    Args:
        config: the checked config.
        allowed_roots: folders from which files may be read.
        context: supplies the guard that is entered around each task.
    """

    def __init__(self, config: PipelineConfig, allowed_roots: AllowedRoots, context: StageContext) -> None:
        self.config, self.allowed_roots, self.context = config, allowed_roots, context
        self.row_number = 0
        self.sample: str | None = None
        self.window: int | None = None
        self.open: dict[str, tuple[Task, OpenMedia]] = {}
        """URI -> the task that opened the file, and the file."""
        self.blobs: dict[str, tuple[Blob, ReadCost]] = {}
        """URI -> the file's bytes, and what reading them had taken when it was last added to `cost`."""
        self.values: dict[tuple[Any, ...], Any] = {}
        """Decoded media, model inputs and errors. The last part of a key is the window, or None for all windows."""
        self.cost = Cost()

    def __enter__(self) -> MediaCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def decode(self, request: Request, feature: BoundFeature, row: dict[str, Any]) -> Media:
        """Returns what ``request`` asks for. Raises what the decoder raised, for each call with the same request."""
        if row["sample_id"] != self.sample:
            self._close()
            self.sample = row["sample_id"]
        if row["window"] != self.window:
            self.values = {key: value for key, value in self.values.items() if key[-1] is None}
            self.window = row["window"]
        uri = row[f"{feature.modality}_uri"]
        key = (request, uri, feature.modality, part_of(feature, row))
        started = time.perf_counter()
        try:
            task = self.task("decode", feature, row)
            return cast(Media, self.get_or_compute(key, task, lambda: self._decode(request, feature, row, task)))
        finally:
            self.cost.decode_s += time.perf_counter() - started

    def task(self, step: StageName, feature: BoundFeature, row: dict[str, Any]) -> Task:
        """Returns the `Task` of one step for a feature of a row."""
        source = row[f"{feature.modality}_uri"] or row["sample_id"]
        return Task(self.row_number, step, feature.name, source, part_of(feature, row))

    def get_or_compute(self, key: tuple[Any, ...], task: Task, compute: Callable[[], Any]) -> Any:
        """Returns the cached value of ``key``, or computes it under the guard. A cached error is raised again."""
        if key not in self.values:
            try:
                with self.context.guard(task):
                    self.values[key] = compute()
            except Exception as error:  # cached, so that the next feature with this key fails in the same way
                self.values[key] = error
        value = self.values[key]
        if isinstance(value, Exception):
            raise value
        return value

    def _decode(self, request: Request, feature: BoundFeature, row: dict[str, Any], task: Task) -> Media:
        uri = row[f"{feature.modality}_uri"]
        if uri is None:
            self.config.decoders.text.check_length(row["inline_text"])
            return self._slice(Text(row["inline_text"]), row)
        try:
            return self._decode_file(request, feature, row, task, uri)
        finally:
            self._add_reads(uri)

    def _decode_file(self, request: Request, feature: BoundFeature, row: dict[str, Any], task: Task, uri: str) -> Media:
        start, end = row["start_s"], row["end_s"]
        media = self._open_file(uri, feature, task)
        self.cost.decoded += 1
        if feature.modality == "text":
            return self._slice(media.text(start, end) if row["text_timed"] else media.text(None, None), row)
        if feature.modality == "image":  # closed after use: the decoded image is cached for the whole sample
            del self.open[uri]
            with media:
                return media.image()
        if isinstance(request, FramesRequest):
            return media.frames(request.sampling, start, end)
        assert isinstance(request, WaveformRequest)
        return media.waveform(request.sample_rate, start, end)

    def _slice(self, text: Text, row: dict[str, Any]) -> Text:
        """Returns the row's part of a text. Raises `NoWords` or ``SampleError`` (``empty``) if it has no words."""
        if row["text_from"] is not None:
            text = Text(text.text[row["text_from"] : row["text_to"]])
        if not text.text.strip():
            if row["text_timed"]:
                raise NoWords
            raise SampleError("empty", "no words in it")
        return text

    def _open_file(self, uri: str, feature: BoundFeature, task: Task) -> OpenMedia:
        if uri not in self.open:
            blob = Blob(uri, self.allowed_roots, self.context.on_wait)
            self.blobs[uri] = blob, ReadCost()
            if blob.local:
                self.cost.bytes_read += blob.size()
            self.open[uri] = task, open_media(blob, feature.modality, self.config.decoders)
        return self.open[uri][1]

    def _add_reads(self, uri: str) -> None:
        """Adds what reading a remote file took since the last call to the cost of the current row."""
        if uri in self.blobs:
            blob, counted = self.blobs[uri]
            now = blob.cost()
            self.cost.add_reads(now.since(counted))
            self.blobs[uri] = blob, now

    def _close(self) -> None:
        for task, media in self.open.values():
            with self.context.guard(task):  # native code: an exit is blamed on the task that opened the file
                media.close()
        self.open.clear()
        self.blobs.clear()
        self.values.clear()
        self.window = None
