"""Writes the demo checkpoints: small `transformers` models with weights from a seed, processors and tokenizers."""

from __future__ import annotations

import os
from collections.abc import Callable

from pipeline.demo.checkpoints import audio, gemma, text, vision

CHECKPOINTS: dict[str, Callable[[str], None]] = {
    "embedding_gemma2": gemma.write_embedding_gemma2,
    "bert": text.write_bert,
    "clip": vision.write_clip,
    "siglip": vision.write_siglip,
    "vit": vision.write_vit,
    "dinov2": vision.write_dinov2,
    "videomae": vision.write_videomae,
    "vjepa2": vision.write_vjepa2,
    "wav2vec2": audio.write_wav2vec2,
    "whisper": audio.write_whisper,
    "ast": audio.write_ast,
    "clap": audio.write_clap,
}


def build(folder: str) -> list[str]:
    """Writes every demo checkpoint below ``folder``. Returns their folders."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    written = []
    for name, write in CHECKPOINTS.items():
        path = os.path.join(folder, name)
        os.makedirs(path, exist_ok=True)
        write(path)
        written.append(path)
    return written
