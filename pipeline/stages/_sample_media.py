"""What the files of one sample hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline import sources
from pipeline.config import bound
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import SampleError
from pipeline.core.media import MediaInfo, Modality, Span
from pipeline.core.schema import ROLES
from pipeline.decoders import open_media
from pipeline.sandbox import StageContext, Task
from pipeline.stages.rows import Failure, failure
from pipeline.storage.blob import Blob
from pipeline.storage.ranges import ReadCost

_File = tuple[str, str, MediaInfo]
"""Role, URI and media of a file."""
Times = dict[str, Any]
"""A window: ``start_s`` and ``end_s`` in seconds, ``text_from`` and ``text_to`` in characters; each may be None."""
Window = tuple[Times, set[Modality]]
"""A window, and the modalities that it has media of."""


@dataclass
class SampleMedia:
    """The media in the files of one sample.

    Args:
        uris: modality -> the file that supplies it; None: inline text.
        spans: modality -> its time span; None: it has no times.
        words: time spans of the segments of a timed text.
        failures: why files could not be opened, or windows not be cut.
        reads: what reading remote files took.
    """

    uris: dict[Modality, str | None] = field(default_factory=dict)
    spans: dict[Modality, Span | None] = field(default_factory=dict)
    words: tuple[Span, ...] = ()
    failures: list[Failure] = field(default_factory=list)
    reads: ReadCost = field(default_factory=ReadCost)

    def last_span(self) -> Span | None:
        """Returns the span that ends last, among those of the other modalities than text; without any, that of text."""
        timed = {modality: span for modality, span in self.spans.items() if span is not None}
        media = [span for modality, span in timed.items() if modality != "text"]
        return max(media, key=lambda span: span.end_s, default=timed.get("text"))

    def modalities_in(self, start_s: float | None, end_s: float | None) -> set[Modality]:
        """Returns the modalities with media in ``[start_s, end_s)``, in seconds; untimed media are in all windows."""
        found = {modality for modality, span in self.spans.items() if span is None}
        if start_s is None or end_s is None:
            return found
        for modality, span in self.spans.items():
            if span is not None and span.overlaps(start_s, end_s):
                starts, latest_ends = self._word_times
                begun = int(np.searchsorted(starts, end_s)) if modality == "text" else 0
                if modality != "text" or (begun and latest_ends[begun - 1] > start_s):
                    found.add(modality)
        return found

    def windows_with_media(self, cuts: list[Times]) -> list[Window]:
        """Returns the windows among ``cuts`` that have media; the first one if none has."""
        found = [(times, self.modalities_in(times["start_s"], times["end_s"])) for times in cuts]
        return [window for window in found if window[1]] or found[:1]

    @cached_property
    def _word_times(self) -> tuple[np.ndarray, np.ndarray]:
        """The starts of the words in ascending order, and the latest end of all words up to each; seconds."""
        words = sorted(self.words, key=lambda span: span.start_s)
        return np.array([s.start_s for s in words]), np.maximum.accumulate([s.end_s for s in words] or [0.0])


class MediaProber:
    """Opens the files of samples and reads their headers.

    Args:
        config: the checked config.
        features: the features of the run.
    """

    def __init__(self, config: PipelineConfig, features: tuple[BoundFeature, ...]) -> None:
        self.config = config
        self.allowed_roots = sources.build(config.source).allowed_roots()
        self.features = features
        self.modalities = bound.wanted(config)
        self.roles = bound.roles_to_open(self.modalities)

    def probe(self, number: int, sample: dict[str, Any], context: StageContext) -> SampleMedia:
        """Opens the files of a sample. Returns what they hold, with a failure for each feature that they lack.

        Args:
            number: index of the sample in its table.
            sample: a row of the listing.
            context: supplies the guard that is entered around each task.
        """
        media = SampleMedia()
        if sample["refused"] is not None:
            media.failures.append(failure(None, None, "probe", SampleError("invalid", sample["refused"])))
            return media
        has_inline_text = sample["inline_text"] is not None and "text" in self.modalities
        if has_inline_text:
            media.uris["text"], media.spans["text"] = None, None
        opened, broken = self._open_files(number, sample, media, has_inline_text, context)
        failed = {modality for modality in self.modalities if modality in {role for role, _, _ in broken}}
        for by_role in (True, False):  # a file named for a modality takes precedence over others that also have it
            for role, uri, info in opened:
                for modality, span in info.spans.items():
                    if modality in self.modalities - failed and (modality == role) is by_role:
                        media.uris.setdefault(modality, uri)
                        media.spans.setdefault(modality, span)
                        media.words = info.words if media.uris[modality] == uri and info.words else media.words
        for role, uri, cause in broken:
            lost = {m for m in failed if m == role} or self._missing(media, {"audio"} if role == "video" else set())
            media.failures.extend(self._failures(lost, uri, cause))
        for _, uri, info in opened:
            for modality in sorted(self._missing(media, set(info.unsupported)) - failed):
                coding = SampleError("unsupported", f"its {modality} is in a coding that FFmpeg does not know")
                media.failures.extend(self._failures({modality}, uri, coding))
                failed.add(modality)
        return media

    def _open_files(
        self, number: int, sample: dict[str, Any], media: SampleMedia, has_inline_text: bool, context: StageContext
    ) -> tuple[list[_File], list[tuple[str, str, Exception]]]:
        """Opens each file of a sample and reads its header. Returns the files; and role, URI and error of the others.

        An inline text replaces the text file, which is not opened.
        """
        opened: list[_File] = []
        broken: list[tuple[str, str, Exception]] = []
        is_only_file = sum(sample[f"{role}_uri"] is not None for role in self.roles) == 1
        for role in ROLES:
            uri = sample[f"{role}_uri"]
            if uri is None or role not in self.roles or (role == "text" and has_inline_text):
                continue
            hint = None if role == "other" else role
            blob = Blob(uri, self.allowed_roots, context.on_wait)
            try:
                with (
                    context.guard(Task(number, "probe", role, uri)),
                    open_media(blob, hint, self.config.decoders) as file,  # type: ignore[arg-type]
                ):
                    if not is_only_file:  # without the check, a broken image would fail in each window of other media
                        file.check()
                    opened.append((role, uri, _timed_streams(file.info)))
            except Exception as error:  # a decoder may raise anything; the sample continues without this file
                broken.append((role, uri, error))
            media.reads = media.reads.plus(blob.cost())
        return opened, broken

    def text_windows(
        self, media: SampleMedia, sample: dict[str, Any], cutter: Any, context: StageContext
    ) -> list[tuple[int, int]]:
        """Cuts the text of a sample into windows of tokens.

        Args:
            media: the media of the sample.
            sample: a row of the listing.
            cutter: a tokenizer.
            context: of the process that this runs in.

        Returns:
            start and end of each window, in characters.

        Raises:
            SampleError: ``limit``, the text is too long or makes too many windows.
            Exception: what the decoder or the tokenizer raises.
        """
        uri = media.uris["text"]
        if uri is None:
            self.config.decoders.text.check_length(sample["inline_text"])
            cuts = list(cutter.cut(sample["inline_text"]))
        else:
            blob = Blob(uri, self.allowed_roots, context.on_wait)
            try:
                with open_media(blob, "text", self.config.decoders) as file:
                    cuts = list(cutter.cut(file.text(None, None).text))
            finally:
                media.reads = media.reads.plus(blob.cost())
        if len(cuts) > (limit := self.config.window.max_windows):
            raise SampleError("limit", f"its text makes {len(cuts)} windows, more than {limit}: see window.max_windows")
        return cuts

    def refuse(self, media: SampleMedia, modalities: set[Modality], error: Exception) -> None:
        """Removes modalities from a sample, with a failure for each of their features."""
        for modality in sorted(modalities):
            media.failures.extend(self._failures({modality}, media.uris[modality], error))
            del media.spans[modality]

    def _missing(self, media: SampleMedia, modalities: set[Modality]) -> set[Modality]:
        """Returns those of ``modalities`` that some feature reads and no file supplies."""
        return (modalities & self.modalities) - set(media.spans)

    def _failures(self, modalities: set[Modality], uri: str | None, error: Exception) -> list[Failure]:
        """Returns one failure for each feature of ``modalities``; one without a feature if there is none."""
        names = [f.name for f in self.features if f.modality in modalities]
        return [failure(name, uri, "probe", error) for name in names] or [failure(None, uri, "probe", error)]


def _timed_streams(info: MediaInfo) -> MediaInfo:
    """Returns ``info`` without streams that cover no time. Raises ``SampleError`` (``empty``) if none is left."""
    spans = {m: span for m, span in info.spans.items() if span is None or span.end_s > span.start_s}
    if not spans:
        raise SampleError("empty", f"no stream of this {info.format} covers any time")
    return replace(info, spans=spans)
