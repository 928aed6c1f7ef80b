"""How fast videos are decoded, and that nothing changes: `python -m tests.measure.video_speed`.

Every real clip in windows of 2 s, 8 pictures each, in one thread: by decord (PyAV where decord refuses), by PyAV with
every picture decoded, and by PyAV as it is. Prints CPU milliseconds a window, and ends with 1 if the last two differ.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from pipeline.core.errors import SampleError
from pipeline.core.media import Frames, Span, UniformSampling
from pipeline.core.system import allocator
from pipeline.decoders import video_decord, video_pyav
from pipeline.decoders._shared.container import Container
from pipeline.storage.blob import Blob
from tests.measure.regimes import DATA

WAYS = ("decord", "whole", "as it is")


def frames_by(way: str, path: Path, span: Span, start_s: float | None) -> tuple[list[str], float]:
    """Every window's digest, or the kind of its failure; CPU seconds of decoding."""
    container = Container(Blob(str(path)))
    container.start_s = start_s
    started = time.process_time()
    backend: video_decord.DecordReader | video_pyav.PyavReader
    if way == "decord":
        backend = video_decord.DecordReader(str(path), container, span, video_decord.Config())
    else:
        backend = video_pyav.PyavReader(container, span, video_pyav.Config())
        backend.plans = backend.plans and way != "whole"
    done: list[str] = []
    spent = time.process_time() - started
    for start in np.arange(0.0, span.end_s, 2.0).tolist():
        started = time.process_time()
        try:
            frames: Frames | None = backend.frames(UniformSampling(8), start, start + 2.0)
        except SampleError as error:
            frames = None
            done.append(error.kind)
        spent += time.process_time() - started
        if frames is not None:  # kept, they would take the memory that the next way finds warm
            done.append(hashlib.blake2b(frames.pixels.tobytes() + frames.times_s.tobytes()).hexdigest())
    container.close()
    return done, spent


def main() -> None:
    allocator.keep_pages()
    spent: defaultdict[str, Counter[str]] = defaultdict(Counter)
    windows: Counter[str] = Counter()
    differing = 0
    for path in sorted((DATA / "videos").iterdir()):
        if path.suffix == ".csv":
            continue
        container = Container(Blob(str(path)))
        span, codec = container.spans().get("video"), container.video and container.video.codec_context.name
        container.close()
        if span is None:
            continue
        done: dict[str, list[str]] = {}
        for way in WAYS:
            done[way], seconds = frames_by(way, path, span, container.start_s)
            for kind in ("all", codec):
                spent[kind][way] += seconds
        for kind in ("all", codec):
            windows[kind] += len(done["whole"])
        differing += sum(one != other for one, other in zip(done["whole"], done["as it is"], strict=True))
    for kind, count in windows.most_common():
        reported = ", ".join(f"{way} {1e3 * spent[kind][way] / count:.1f}" for way in WAYS)
        print(f"{kind}: {count} windows; ms a window: {reported}")
    print(f"{differing} windows differ between the last two")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
