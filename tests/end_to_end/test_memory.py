"""What a decoding process takes for the largest media that people have: the bound that docs/performance.md states."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
import soundfile
import yaml

from tests.stages.media_fixtures import AUDIO, config
from tests.support import ROOT, bounded

MB = 1 << 20


def _clip(path: Path, width: int, height: int, frames: int) -> None:
    """H.264 with three B pictures, 15 a second; noise in a corner, so that no two pictures are the same."""
    dice = np.random.default_rng(0)
    picture = np.zeros((height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15, options={"preset": "ultrafast", "bf": "3", "refs": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(frames):
            picture[:64, :64] = dice.integers(0, 255, (64, 64, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _photo(path: Path, width: int, height: int) -> None:
    pixels = np.repeat(np.random.default_rng(0).integers(0, 255, (height, 1, 3), np.uint8), width, 1)
    path.write_bytes(simplejpeg.encode_jpeg(pixels, quality=80))


def _written(folder: Path, name: str, media: Path, models: Path, feature: dict[str, Any], **sections: Any) -> Path:
    encoder = {"kind": "vit", "checkpoint": str(models / "vit"), "device": "cpu"}
    config = {
        "source": {"kind": "files", "path": str(media)},
        "output": {"path": str(folder / "out")},
        "features": {"x": {**feature, "encoder": encoder}},
        **sections,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("video", 600 * MB), ("image", 350 * MB)])
def test_a_core_decodes_the_largest_within_its_bound(kind: str, most: int, tmp_path: Path, models: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    if kind == "video":
        for folder, width, height in ((small, 320, 240), (large, 3840, 2160)):
            _clip(folder / "a.mp4", width, height, 60)
        tokenizer = {"kind": "frame", "sampling": {"kind": "uniform", "frames": 8}}
    else:
        for number in range(2):
            _photo(small / f"{number}.jpg", 640, 480)
            _photo(large / f"{number}.jpg", 8660, 5774)
        tokenizer = {"kind": "patch"}
    feature = {"modality": kind, "tokenizer": tokenizer}
    configs = [
        _written(tmp_path, media.name, media, models, feature, window={"length_s": 2.0}) for media in (small, large)
    ]
    command = [sys.executable, "-m", "tests.end_to_end.programs.decode_and_print_peak", *map(str, configs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (rows, before), (_, after) = json.loads(done.stdout.splitlines()[-1])
    assert rows == 2
    print(f"{kind}: {(after - before) / MB:.0f} MB more than for small ones")
    assert after - before < most


@pytest.mark.slow
def test_sounds_of_hours_are_decoded_a_few_at_a_time(tmp_path: Path) -> None:
    """Silence of half an hour is 115 MB in a decoder, from kilobytes of FLAC."""
    media = tmp_path / "in"
    media.mkdir()
    soundfile.write(media / "0.flac", np.zeros(1800 * 16_000, np.int16), 16_000)
    assert (media / "0.flac").stat().st_size < MB
    for number in range(1, 8):
        shutil.copy(media / "0.flac", media / f"{number}.flac")
    feature = {**AUDIO, "tokenizer": {"kind": "audio_frame", "sample_rate": 16_000}}
    peaks = {}
    for name, most in (("whole", 1 << 34), ("parts", 256 * MB)):
        written = config(media, {"a": feature}, decoders={"limits": {"block_bytes": most}})
        (tmp_path / f"{name}.yaml").write_text(written.model_dump_json())
        done = bounded.run("tests.end_to_end.programs.decode_in_blocks", tmp_path / f"{name}.yaml")
        parts = json.loads(done.out)
        assert sum(parts) == 8
        peaks[name] = done.peak_mb
        assert len(parts) == {"whole": 1, "parts": 4}[name]
    assert peaks["parts"] < 1300 < 2100 < peaks["whole"]
