"""JPEGs: those that libjpeg decodes directly, and those that are left to Pillow."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipeline.decoders._shared.jpeg import jpeg_pixels, plain_jpeg
from tests.decoders.images import failure_of, pixels_of, saved_as


def test_photographs_agree_with_a_second_decoder(data: Path) -> None:
    from torchvision.io import ImageReadMode, decode_image

    photos = [p for p in sorted((data / "images").iterdir()) if p.suffix in (".jpg", ".png")]
    for path in photos[:: len(photos) // 12]:
        with PIL.Image.open(path) as picture:
            if picture.mode != "RGB":
                continue
        wanted = decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True).permute(1, 2, 0).numpy()
        found = pixels_of(path)
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).mean() < 1.0, path.name


def test_plain_jpegs_of_the_real_media_are_what_pillow_reads(data: Path) -> None:
    plain = 0
    for path in sorted((data / "images").glob("*.jp*g")):
        content = path.read_bytes()
        size = plain_jpeg(content)
        if size is None:
            continue
        plain += 1
        expected = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB"))
        pixels = jpeg_pixels(content)
        assert pixels is not None
        assert size == expected.shape[1::-1]
        assert np.array_equal(pixels, expected), path.name
    assert plain > 400


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"mode": "L"}]
)
def test_jpegs_of_every_plain_kind(tmp_path: Path, options: dict[str, Any]) -> None:
    values = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)
    path = saved_as(tmp_path, values, options.pop("mode", None), ".jpg", quality=88, **options)
    assert plain_jpeg(path.read_bytes()) == (53, 37)
    assert np.array_equal(pixels_of(path), np.asarray(PIL.Image.open(path).convert("RGB")))


def test_jpegs_of_other_kinds_are_left_to_pillow(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)
    turned, words = PIL.Image.Exif(), b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    turned[0x0112] = 6
    for mode, options in (("CMYK", {}), ("RGB", {"exif": turned}), ("RGB", {"xmp": words})):
        path = saved_as(tmp_path, values, mode, ".jpg", **options)
        assert plain_jpeg(path.read_bytes()) is None
        assert pixels_of(path).shape == ((37, 53, 3) if mode == "CMYK" else (53, 37, 3))


def test_a_damaged_jpeg_fails_in_pillow_s_words_or_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    whole = saved_as(tmp_path, values, None, ".jpg").read_bytes()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole[: len(whole) // 2])
    assert plain_jpeg(cut.read_bytes()) == (64, 64)
    assert jpeg_pixels(cut.read_bytes()) is None
    assert "truncated" in failure_of(cut).message
    assert pixels_of(cut, truncated=True).shape == (64, 64, 3)
    odd = tmp_path / "odd.jpg"
    odd.write_bytes(whole[:-300] + bytes(300))
    with PIL.Image.open(odd) as picture:
        assert np.array_equal(pixels_of(odd), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(("edge", "shape"), [(None, (800, 1000, 3)), (401, (800, 1000, 3)), (400, (400, 500, 3))])
@pytest.mark.parametrize("quarter", [False, True])
def test_large_jpegs_are_decoded_small_where_that_is_asked(
    tmp_path: Path, edge: int | None, shape: tuple[int, ...], quarter: bool
) -> None:
    """As Pillow's own `draft` does it."""
    if quarter and edge == 400:
        edge, shape = 130, (200, 250, 3)
    ramp = np.linspace(0, 255, 1000)[None, :, None] * np.ones((800, 1, 3))
    path = saved_as(tmp_path, ramp.astype(np.uint8), None, ".jpg", quality=95)
    found = pixels_of(path, shorter_edge=edge)
    assert found.shape == shape
    with PIL.Image.open(path) as picture:
        picture.draft("RGB", shape[1::-1])
        assert np.array_equal(found, np.asarray(picture))
