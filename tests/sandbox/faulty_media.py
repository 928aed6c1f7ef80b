"""Stages whose decoders do, in the child, what hostile media make native code do. A file's name says what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipeline.stages._media_cache
import pipeline.stages._sample_media
from pipeline.core.media import Image
from pipeline.decoders import OpenMedia, open_media
from pipeline.stages.decode import DecodeStage
from pipeline.stages.probe import ProbeStage
from tests.sandbox.faults import FAULTS


def fault_of(uri: str) -> Callable[[], Any] | None:
    """``bad-abort.png`` aborts; ``bad-abort-once.png`` only the first time, which a file next to it records."""
    words = Path(uri).stem.split("-")
    if words[0] != "bad" or words[1] not in FAULTS:
        return None
    if words[-1] == "once":
        mark = Path(uri).with_suffix(".tried")
        if mark.exists():
            return None
        mark.touch()
    return FAULTS[words[1]]


class FaultyMedia(OpenMedia):
    """Media that open well and misbehave when they are decoded, or when they are closed."""

    def __init__(self, media: OpenMedia, uri: str) -> None:
        self.media, self.uri, self.info = media, uri, media.info

    def image(self) -> Image:
        if fault := None if "closing" in self.uri else fault_of(self.uri):
            fault()
        return self.media.image()

    def frames(self, *asked: Any) -> Any:
        if fault := None if "closing" in self.uri else fault_of(self.uri):
            fault()
        return self.media.frames(*asked)

    def sound(self) -> Any:
        return self.media.sound()

    def waveform(self, *asked: Any) -> Any:
        return self.media.waveform(*asked)

    def close(self) -> None:
        if "closing" in self.uri and (fault := fault_of(self.uri)):
            fault()
        self.media.close()


class FaultyDecode(DecodeStage):
    def setup(self) -> None:
        super().setup()
        pipeline.stages._media_cache.open_media = lambda blob, *rest: FaultyMedia(open_media(blob, *rest), blob.uri)


class FaultyProbe(ProbeStage):
    """``only``: files with this in their name."""

    only = ""

    def setup(self) -> None:
        super().setup()

        def opened(blob: Any, *rest: Any) -> OpenMedia:
            if self.only in blob.uri and (fault := fault_of(blob.uri)):
                fault()
            return open_media(blob, *rest)

        pipeline.stages._sample_media.open_media = opened


class FaultyOpening(FaultyProbe):
    """Beside ``FaultyDecode`` in one run: ``bad-abort-opening.png`` dies while it is opened, the others later."""

    only = "opening"
