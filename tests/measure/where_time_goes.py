"""CPU milliseconds of one picture, one clip, one minute of sound and one text, step by step: `python -m
tests.measure.where_time_goes FOLDER`.

One thread, the real media, the small models of the regimes (written into FOLDER), each step by the function that a run
calls. A clip: 8 pictures of 2 s. Sound: OGG of 44.1 kHz in windows of 5 s, as it is in the corpus. A text: 130 tokens.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmark.fresh_process import one_thread
from pipeline.config.features import bind
from pipeline.config.loading import load
from pipeline.core.errors import TesseraError
from pipeline.core.media import Modality, Text, UniformSampling, Waveform
from pipeline.core.system import allocator
from pipeline.decoders import DecodersConfig, OpenMedia, open_media
from pipeline.decoders._shared.rotation import upright
from pipeline.storage.blob import Blob
from pipeline.tokenizers.base import ModelInputs
from tests.measure import regimes

BATCH = 32
MODEL = "model, with what is left of preprocessing"


class Clock:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    def __call__(self, step: str, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        started = time.process_time()
        done = work(*args, **options)
        self.spent[step] += time.process_time() - started
        return done

    def assert_reported(self, title: str, count: float) -> None:
        """Milliseconds of each step, for one of ``count``."""
        print(f"{title}: {sum(self.spent.values()) / count * 1e3:.2f} ms")
        for step, seconds in self.spent.items():
            print(f"    {seconds / count * 1e3:8.3f}  {step}")


def made(name: str, folder: Path) -> tuple[Any, Any]:
    """The regime's tokenizer and encoder, set up."""
    (feature,) = bind(load(str(regimes.write(name, folder / name))))
    tokenizer, encoder = feature.tokenizer(), feature.encoder()
    tokenizer.setup()
    encoder.setup()
    one_thread()
    return tokenizer, encoder


def encoded(clock: Clock, encoder: Any, rows: list[ModelInputs]) -> None:
    encoder.encode(rows[:BATCH], False)
    for start in range(0, len(rows), BATCH):
        clock(MODEL, encoder.encode, rows[start : start + BATCH], False)


def opened(clock: Clock, path: Path, hint: Modality) -> OpenMedia | None:
    try:
        return clock("open, look at what it is", open_media, Blob(str(path)), hint, DecodersConfig())
    except TesseraError:
        return None


def pictures(folder: Path) -> None:
    tokenizer, encoder = made("images", folder)
    for title, suffixes in (("a JPEG", (".jpg", ".jpeg")), ("a picture of any format", ())):
        clock, rows = Clock(), []
        for path in sorted((regimes.DATA / "images").iterdir()):
            if suffixes and path.suffix.lower() not in suffixes:
                continue
            media = opened(clock, path, "image")
            if media is not None and "image" in media.info.spans:
                picture = clock("decode", media.image)
                rows.append(clock("resize, crop", tokenizer.tokenize, picture))
                media.close()
        encoded(clock, encoder, rows)
        clock.assert_reported(title, len(rows))


def clips(folder: Path) -> None:
    import av

    tokenizer, encoder = made("video", folder)
    clock, rows = Clock(), []
    convert_s = 0.0
    for path in sorted((regimes.DATA / "videos").iterdir()):
        media = None if path.suffix == ".csv" else opened(clock, path, "video")
        span = media and media.info.spans.get("video")
        if media is None or span is None:
            continue
        for start in np.arange(0.0, span.end_s, 2.0).tolist():
            frames = clock("decode", media.frames, UniformSampling(8), start, start + 2.0)
            rows.append(clock("resize, crop", tokenizer.tokenize, frames))
        media.close()
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            reformatter = av.video.reformatter.VideoReformatter()
            upright(frame, None, reformatter)
            started = time.process_time()
            upright(frame, None, reformatter)
            convert_s += (time.process_time() - started) * 8 * len(np.arange(0.0, span.end_s, 2.0))
    encoded(clock, encoder, rows)
    clock.assert_reported("a clip", len(rows))
    print(f"    {convert_s / len(rows) * 1e3:8.3f}  of decoding: 8 pictures to RGB")


def sounds(folder: Path) -> None:
    tokenizer, encoder = made("audio", folder)
    clock, rows, seconds = Clock(), [], 0.0
    for path in sorted((regimes.DATA / "audio").glob("*.ogg")):
        media = opened(clock, path, "audio")
        if media is None:
            continue
        samples, end_s = media.sound(), media.info.spans["audio"].end_s
        clock("decode", samples.read, 0, round(end_s * samples.rate))
        media.close()
        again = open_media(Blob(str(path)), "audio", DecodersConfig())
        started = time.process_time()
        heard: Waveform = again.waveform(16_000, 0.0, end_s)
        both = time.process_time() - started
        again.close()
        clock.spent["resample"] += both
        rows.append(clock("to the encoder's input", tokenizer.tokenize, heard))
        seconds += end_s
    clock.spent["resample"] -= clock.spent["decode"]
    for row in rows:
        clock("log-mel", encoder._features, [row.inputs["waveform"]])
    encoded(clock, encoder, rows)
    clock.spent[MODEL] -= clock.spent["log-mel"]
    clock.assert_reported("a minute of sound", seconds / 60)


def texts(folder: Path) -> None:
    import pyarrow.parquet as pq

    tokenizer, encoder = made("text", folder)
    clock = Clock()
    strings = pq.read_table(folder / "text" / "texts.parquet")["text"].to_pylist()[:256]
    rows = [clock("tokenize", tokenizer.tokenize, Text(string)) for string in strings]
    tokens = sum(len(row.inputs["input_ids"]) for row in rows)
    clock("model, 256 texts at once", encoder.encode, rows, False)
    clock.assert_reported(f"a text of {tokens / len(rows):.0f} tokens", len(rows))
    weights = sum(p.numel() for name, p in encoder.model.named_parameters() if ".layer." in name and p.dim() == 2)
    rate = 2 * weights * tokens / clock.spent["model, 256 texts at once"]
    print(f"    the model's matrix products alone, padding not counted: {rate / 1e9:.0f} billion operations a second")


def main() -> None:
    allocator.keep_pages()
    for part in (pictures, clips, sounds, texts):
        part(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
