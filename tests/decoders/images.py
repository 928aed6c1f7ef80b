"""Reads and writes pictures as tests compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pipeline.core.errors import SampleError
from pipeline.decoders.image import ImageConfig, ImageMedia
from pipeline.storage.blob import Blob


def pixels_of(path: Path, **options: Any) -> np.ndarray:
    media = ImageMedia(Blob(str(path)), ImageConfig(**options))
    try:
        found = media.image().pixels
    finally:
        media.close()
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3
    return found


def failure_of(path: Path, **options: Any) -> SampleError:
    with pytest.raises(SampleError) as caught:
        pixels_of(path, **options)
    return caught.value


def saved_as(folder: Path, values: np.ndarray, mode: str | None, suffix: str, **options: Any) -> Path:
    path = folder / f"a{suffix}"
    picture = PIL.Image.fromarray(values)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path
