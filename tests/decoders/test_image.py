from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipeline.core.errors import SampleError
from pipeline.decoders._shared.rgb import to_grey8
from pipeline.decoders.image import FORMATS, REFUSED, ImageConfig, ImageMedia
from pipeline.storage.blob import Blob
from tests.decoders.images import failure_of, pixels_of, saved_as

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_8_bit_colours_are_exact(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    for suffix in (".png", ".bmp", ".tiff", ".ppm"):
        assert np.array_equal(pixels_of(saved_as(tmp_path, values, None, suffix)), values)


def test_grey_and_one_bit(tmp_path: Path) -> None:
    grey = np.array([[0, 7, 200, 255]], np.uint8)
    assert np.array_equal(pixels_of(saved_as(tmp_path, grey, None, ".png")), np.repeat(grey[..., None], 3, 2))
    bits = np.array([[0, 255, 255, 0]], np.uint8)
    assert np.array_equal(pixels_of(saved_as(tmp_path, bits, "1", ".png"))[..., 0], bits)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_greys_are_scaled_by_their_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 257, 257 * 100, 257 * 200 + 100, 65535]], np.uint16)
    assert pixels_of(saved_as(tmp_path, values, None, suffix))[0, :, 0].tolist() == [0, 0, 1, 100, 200, 255]


def test_floats_in_either_range(tmp_path: Path) -> None:
    unit = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert pixels_of(saved_as(tmp_path, unit, None, ".tiff"))[0, :, 0].tolist() == [0, 128, 255]
    byte = np.array([[-0.4, 100.2, 254.6, 255.4, np.nan, np.inf]], np.float32)
    assert pixels_of(saved_as(tmp_path, byte, None, ".tiff"))[0, :, 0].tolist() == [0, 100, 255, 255, 0, 255]
    assert pixels_of(saved_as(tmp_path, np.full((2, 2), np.nan, np.float32), None, ".tiff")).max() == 0


@pytest.mark.parametrize(
    ("values", "clipped", "scaled"),
    [
        ([0.0, 1500.0, 3000.0], [0, 255, 255], [0, 128, 255]),  # heights
        ([-1.0, 0.0, 1.0], [0, 0, 255], [0, 128, 255]),  # normalised
        ([0.0, 0.75, 1.5], [0, 191, 255], [0, 128, 255]),  # high dynamic range
        ([700.0, 700.0, 700.0], [255, 255, 255], [0, 0, 0]),
    ],
)
def test_floats_in_no_known_range(tmp_path: Path, values: list[float], clipped: list[int], scaled: list[int]) -> None:
    path = saved_as(tmp_path, np.array([values], np.float32), None, ".tiff")
    error = failure_of(path)
    assert error.kind == "unsupported"
    assert f"from {values[0]:.6g} to {values[-1]:.6g}" in error.message
    assert "decoders.image.floats" in error.message
    assert pixels_of(path, floats="clip")[0, :, 0].tolist() == clipped
    assert pixels_of(path, floats="scale")[0, :, 0].tolist() == scaled


def test_32_bit_greys(tmp_path: Path) -> None:
    values = np.array([[0, 2**30, 2**31 - 1]], np.int32)
    assert pixels_of(saved_as(tmp_path, values, None, ".tiff"))[0, :, 0].tolist() == [0, 128, 255]


def test_inks(tmp_path: Path) -> None:
    inks = np.array([[[255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)
    path = tmp_path / "a.tiff"
    PIL.Image.fromarray(inks, "CMYK").save(path)
    assert pixels_of(path)[0].tolist() == [[0, 255, 255], [255, 0, 0], [0, 0, 0], [255, 255, 255]]


def test_lab_by_the_formula_of_the_cie(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    PIL.Image.fromarray(np.array([[[0, 0, 0], [255, 0, 0], [128, 0, 0]]], np.uint8), "LAB").save(path)
    lightness = 128 / 255 * 100
    linear = ((lightness + 16) / 116) ** 3
    grey = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(pixels_of(path)[0].astype(float) - [[0] * 3, [255] * 3, [grey] * 3]).max() <= 2


def test_transparency_shows_the_background(tmp_path: Path) -> None:
    values = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], np.uint8)
    path = saved_as(tmp_path, values, None, ".png")
    share = 128 / 255
    half = [round(c * share + 255 * (1 - share)) for c in (200, 100, 0)]
    assert np.abs(pixels_of(path)[0].astype(int) - [[200, 100, 0], WHITE, half]).max() <= 1
    assert pixels_of(path, background=(1, 2, 3))[0, 1].tolist() == [1, 2, 3]
    grey = saved_as(tmp_path, values[..., [0, 3]], None, ".png")  # LA
    assert np.abs(pixels_of(grey)[0, :, 0].astype(int) - [200, 255, half[0]]).max() <= 1


def test_palettes_with_and_without_alpha(tmp_path: Path) -> None:
    picture = PIL.Image.new("P", (3, 1))
    picture.putpalette([*RED, *GREEN, *BLUE])
    picture.putdata([0, 1, 2])
    path = tmp_path / "a.png"
    picture.save(path)
    assert pixels_of(path)[0].tolist() == [list(RED), list(GREEN), list(BLUE)]
    picture.save(path, transparency=1)
    assert pixels_of(path)[0].tolist() == [list(RED), list(WHITE), list(BLUE)]
    picture.save(tmp_path / "a.gif", transparency=2)
    assert pixels_of(tmp_path / "a.gif")[0].tolist() == [list(RED), list(GREEN), list(WHITE)]


TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved_as(tmp_path, values, None, suffix, exif=exif, **options)
    assert np.array_equal(pixels_of(path), TURNS[orientation](values))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    for suffix in (".gif", ".png", ".webp"):
        path = tmp_path / f"a{suffix}"
        frames[0].save(
            path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == ".webp" else {})
        )
        assert pixels_of(path)[0, 0].tolist() == list(RED)


def test_a_truncated_picture_fails_unless_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    path = saved_as(tmp_path, noise, None, ".jpg", quality=95)
    whole = pixels_of(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert failure_of(path).kind == "corrupt"
    assert "truncated" in failure_of(path).message
    kept = pixels_of(path, truncated=True)
    assert np.array_equal(kept[:64], whole[:64])
    assert not np.array_equal(kept[-16:], whole[-16:])
    assert failure_of(path).kind == "corrupt"  # one config's choice does not stay


def test_limits_are_judged_by_the_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_header(20000, 20000))
    error = failure_of(path)
    assert error.kind == "limit"
    assert "178956970" in error.message
    small = saved_as(tmp_path, np.zeros((10, 10, 3), np.uint8), None, ".bmp")
    assert pixels_of(small, max_pixels=100).shape == (10, 10, 3)
    assert failure_of(small, max_pixels=99).kind == "limit"


def test_the_limit_of_pillow_is_given_back(tmp_path: Path) -> None:
    before = PIL.Image.MAX_IMAGE_PIXELS
    pixels_of(saved_as(tmp_path, np.zeros((2, 2), np.uint8), None, ".png"), max_pixels=9)
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_broken_exif_does_not_stop_a_picture(data: Path) -> None:
    for name in ("broken_exif_dpi.jpg", "hopper_bad_exif.jpg", "invalid-exif.jpg", "multiple_exif.jpg"):
        path = data / "bad" / f"pillow__{name}"
        with PIL.Image.open(path) as picture:
            assert pixels_of(path).shape[:2] in (picture.size, picture.size[::-1])


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("dv_trunc.jpg", "corrupt", "truncated"),
        ("dv_trunc.png", "corrupt", "truncated"),
        ("dv_trunc_200b.jpg", "corrupt", "Truncated File Read"),
        ("dv_badcrc.png", "corrupt", "cannot identify"),
        ("dv_html_named.jpg", "unsupported", "cannot identify"),
        ("dv_zero.jpg", "empty", "zero bytes"),
        ("dv_bomb_20000x20000.png", "limit", "400000000"),
        ("pillow__decompression_bomb.ico", "limit", "4294836225"),
        ("pillow__badwidth.bmp", "limit", "max_pixels"),
        ("pillow__crash-2020-10-test.tif", "corrupt", "Error"),
        ("pillow__timeout-1ee28a249896e05b83840ae8140622de8e648ba9.psd", "corrupt", "Error"),
        ("pillow__seek_too_large.tif", "corrupt", "ValueError: Unable to seek"),
    ],
)
def test_failures_in_the_words_of_pillow(data: Path, name: str, kind: str, words: str) -> None:
    error = failure_of(data / "bad" / name)
    assert error.kind == kind
    assert words in error.message
    assert "0x" not in error.message  # the same words in every run


def test_heic_through_the_video_library(data: Path) -> None:
    import av

    for name in ("torchcodec__gradient_10bit.heic", "torchcodec__animated.heic"):
        path = data / "bad" / name
        with av.open(str(path)) as container:
            wanted = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert np.array_equal(pixels_of(path), wanted)


def _png_header(width: int, height: int) -> bytes:
    out = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    out.seek(0, io.SEEK_END)
    for tag, body in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))):
        out.write(struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)))
    return out.getvalue()


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.jpg"
    PIL.Image.new("RGB", (8, 8)).save(path)
    with path.open("r+b") as file:
        file.truncate(3 << 30)  # sparse: takes no room
    with pytest.raises(SampleError, match="over max_bytes 536870912") as caught:
        ImageMedia(Blob(str(path)), ImageConfig())
    assert caught.value.kind == "limit"


def test_a_large_grey_takes_little_more_than_its_pixels(tmp_path: Path) -> None:
    """16 bits a pixel: the same values as a whole array at once, in a fraction of the memory."""
    import tracemalloc

    values = np.random.default_rng(0).integers(0, 65536, (3000, 3000), np.uint16)
    tracemalloc.start()
    grey = to_grey8(values, "I;16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(grey, np.clip(np.round(values / 257), 0, 255).astype(np.uint8))
    assert peak < 2 * grey.nbytes


def test_an_opaque_picture_with_an_alpha_channel_keeps_its_colours(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (9, 9, 4), np.uint8)
    values[..., 3] = 255
    assert np.array_equal(pixels_of(saved_as(tmp_path, values, None, ".png"), background=(1, 2, 3)), values[..., :3])


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


def wrapped_in_iptc(data: bytes, width: int = 20, height: int = 20) -> bytes:
    """A file of the news agencies, whose picture is any file; Pillow opens it in whatever format it is."""

    def field(record: int, number: int, value: bytes) -> bytes:
        return bytes([0x1C, record, number]) + struct.pack(">H", len(value)) + value

    fields = [(3, 20, struct.pack(">I", width)), (3, 30, struct.pack(">I", height)), (3, 60, bytes([1, 0]))]
    return b"".join(field(*one) for one in [*fields, (3, 120, bytes([5])), (8, 10, data)])


def test_every_plugin_of_pillow_is_let_in_or_left_out_for_a_reason() -> None:
    PIL.Image.init()
    assert set(PIL.Image.OPEN) <= {*FORMATS, *REFUSED}
    assert not set(FORMATS) & set(REFUSED)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (POSTSCRIPT, "EPS: a program in PostScript, which Ghostscript would have to run"),
        (b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 32, len(POSTSCRIPT), 0, 0, 0, 0, 0) + POSTSCRIPT, "EPS: a program"),
        (wrapped_in_iptc(POSTSCRIPT), "cannot identify image file"),
        (b"\xd7\xcd\xc6\x9a\0\0" + bytes(40), "WMF: drawing commands"),
        (b"GRIB" + bytes(3) + b"\x01" + bytes(40), "GRIB: no picture"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5: no picture"),
    ],
    ids=["eps", "eps-with-preview", "eps-in-iptc", "wmf", "grib", "hdf5"],
)
def test_what_another_program_would_have_to_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    started = tmp_path / "started"
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\necho started >> {started}\necho 10.0\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(gs.parent), prepend=":")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    error = failure_of(path)
    assert error.kind == "unsupported"
    assert words in error.message
    assert not started.exists()


def test_a_heic_file_opens_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of files that names itself HEIC is none: FFmpeg is not asked what it is."""
    import av

    asked: list[dict[str, Any]] = []
    original = av.open

    def opened(file: Any, **options: Any) -> Any:
        asked.append(options)
        return original(file, **options)

    monkeypatch.setattr(av, "open", opened)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(12) + b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    assert failure_of(path).kind == "corrupt"
    assert [(one["format"], one["container_options"]["protocol_whitelist"]) for one in asked] == [("mov", "none")]
