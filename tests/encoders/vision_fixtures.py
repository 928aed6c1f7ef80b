"""Media, checkpoints and comparisons for the tests of visual tokenizers and encoders.

Pictures and clips are decoded with Pillow and PyAV, so that the reference does not depend on the package's decoders.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import SampleError
from pipeline.core.media import Frames, Media
from pipeline.demo.checkpoints.vision import WRITERS
from pipeline.encoders.base import Encoded
from pipeline.tokenizers.base import ModelInputs

IMAGES = (
    "coco__000000006818.jpg",
    "mdn__ballon-portrait.jpg",
    "mdn__favicon57.png",
    "moviepy__example2.png",
    "clothing__dress__06a00c0f-5f9a-410d-a7da-3881a9df3a71.jpg",
)
VIDEOS = ("torchcodec__testsrc2_odd_height_and_width_vp9.mp4", "asl__yes.mkv", "mdn__flower.mp4")
TEXTS = (
    "a red circle moves left",
    "A Blue Square, turning!",
    "star",
    "zebra Ünïcødé 7 東京",
    " ".join(["a yellow triangle falls on a plain ground."] * 12),
)


def write_checkpoints(root: Path) -> dict[str, Checkpoint]:
    """One small checkpoint of every visual architecture, by name."""
    made = {}
    for name, write in WRITERS.items():
        folder = root / name
        folder.mkdir()
        write(str(folder))
        made[name] = Checkpoint(str(folder), name, None, "features.f.encoder.checkpoint")
    return made


def read_pictures(data: Path) -> list[np.ndarray]:
    """Real photographs, and noise of extreme sizes: one pixel, 3 pixels high, 3 pixels wide, very wide."""
    import PIL.Image

    real = [np.asarray(PIL.Image.open(data / "images" / name).convert("RGB")) for name in IMAGES]
    noise = np.random.default_rng(3)
    sizes = [(1, 1), (3, 40), (37, 3), (16, 500), (101, 99)]
    return real + [noise.integers(0, 256, (h, w, 3), np.uint8) for h, w in sizes]


def read_clips(data: Path) -> list[Frames]:
    """Eight frames of each real video, every third one, with their presentation times."""
    return [read_clip(data / "videos" / name, 8) for name in VIDEOS]


def read_clip(path: Path, count: int) -> Frames:
    import av

    pixels, times = [], []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 3 == 0:
                pixels.append(frame.to_ndarray(format="rgb24"))
                times.append(float(frame.time))
            if len(pixels) == count:
                break
    return Frames(np.stack(pixels), np.array(times))


def same(ours: np.ndarray | None, reference: Any, tolerance: float = 1e-4) -> None:
    """The project's promise: |difference| <= 1e-4 * max(1, max|reference|)."""
    expected = np.asarray(reference, np.float32)
    assert ours is not None
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    worst = float(np.abs(ours - expected).max()) if ours.size else 0.0
    assert worst <= tolerance * max(1.0, float(np.abs(expected).max(initial=0.0))), f"{worst} apart"


def assert_distinct(references: Sequence[Any]) -> None:
    """Asserts that vectors of different media differ by far more than the tolerance, so that a comparison can fail."""
    stacked = np.stack([np.asarray(r, np.float32) for r in references])
    apart = np.abs(stacked[:, None] - stacked[None]).max(axis=-1)
    assert np.min(apart[~np.eye(len(stacked), dtype=bool)]) > 0.02


def runs(
    build: Callable[[int], Any], rows: Sequence[ModelInputs], batch_sizes: Sequence[int] | None = None
) -> Iterator[list[Encoded]]:
    """The rows encoded in batches of 1, 3 and all, in another order each time; in the rows' order again."""
    for batch_size in batch_sizes or (1, 3, len(rows)):
        order = list(range(len(rows)))
        random.Random(batch_size).shuffle(order)
        encoder = build(batch_size)
        encoder.check("features.f")
        encoder.setup()
        done = encoder.encode([rows[i] for i in order], True)
        by_row: dict[int, Encoded] = {}
        for i, encoded in zip(order, done, strict=True):
            assert not isinstance(encoded, SampleError), str(encoded)
            by_row[i] = encoded
        yield [by_row[i] for i in range(len(rows))]


def tokenized(tokenizer: Any, media: Sequence[Media]) -> list[ModelInputs]:
    tokenizer.check("features.f.tokenizer")
    tokenizer.setup()
    return [tokenizer.tokenize(one) for one in media]


def reference_model(checkpoint: Checkpoint) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(checkpoint.path).eval()


def reference_image_inputs(checkpoint: Checkpoint) -> Callable[[np.ndarray], Any]:
    """transformers' own image processor, whole, on one picture as Pillow holds it."""
    import PIL.Image
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(checkpoint.path)
    return lambda pixels: processor(PIL.Image.fromarray(pixels), return_tensors="pt")
