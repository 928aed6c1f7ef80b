from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.errors import SampleError
from pipeline.decoders._shared.pictures import PictureLimits, Pictures


def test_pictures_are_written_in_place_and_repeated() -> None:
    pictures = Pictures(3, PictureLimits())
    assert pictures.size is None
    pictures.add(np.full((4, 6, 3), 7, np.uint8))
    held = pictures.pixels
    pictures.add(np.full((4, 6, 3), 9, np.uint8), 2)
    assert pictures.pixels is held
    assert pictures.size == (4, 6)
    assert held.shape == (3, 4, 6, 3)
    assert held.mean(axis=(1, 2, 3)).tolist() == [7, 9, 9]


def test_a_frame_may_have_so_many_pixels() -> None:
    PictureLimits(max_pixels=24).check_frame(6, 4)
    with pytest.raises(SampleError, match="6x4 pixels, over max_pixels 23") as caught:
        PictureLimits(max_pixels=23).check_frame(6, 4)
    assert caught.value.kind == "limit"


def test_a_window_may_have_so_many_bytes() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    Pictures(2, PictureLimits(max_window_bytes=144)).add(picture)
    with pytest.raises(SampleError, match="2 frames of 6x4 are 144 bytes, over max_window_bytes 143") as caught:
        Pictures(2, PictureLimits(max_window_bytes=143)).add(picture)
    assert caught.value.kind == "limit"


def test_the_shorter_edge_is_scaled_and_never_up() -> None:
    assert PictureLimits().scaled(1080, 1920) == (1080, 1920)
    assert PictureLimits(shorter_edge=256).scaled(1080, 1920) == (256, 455)
    assert PictureLimits(shorter_edge=256).scaled(1920, 1080) == (455, 256)
    assert PictureLimits(shorter_edge=256).scaled(200, 300) == (200, 300)
