"""Opens texts as tests read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import SampleError
from pipeline.decoders._shared.charset import decode
from pipeline.decoders.text import TextDecoderConfig, TextMedia
from pipeline.storage.blob import Blob


def open_text(folder: Path, name: str, content: str | bytes, config: TextDecoderConfig | None = None) -> TextMedia:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TextMedia(Blob(str(path)), config or TextDecoderConfig())


def failure_kind(data: bytes, **options: str) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data, TextDecoderConfig(**options))  # type: ignore[arg-type]
    return caught.value.kind
