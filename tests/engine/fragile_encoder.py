"""An encoder that certain pictures kill, and what a run over such pictures must give."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.stages.encode import EncodeStage
from pipeline.tokenizers.base import ModelInputs

ABORT, SEGFAULT, DEVICE, ONCE = 250, 251, 252, 253
"""Reds of pictures at which the double below does something."""


class FragileEncode(EncodeStage):
    """An encoder that certain pictures kill, and one of them its device, which then fails at whatever it is given."""

    broken = False

    def setup(self) -> None:
        super().setup()
        encoder: Any = self.encoders["i"]
        whole = encoder.encode

        def encode(rows: Sequence[ModelInputs], want_tokens: bool) -> Any:
            for row in rows:
                self._at(int(row.inputs["pixels"][0, 0, 0]))
            return whole(rows, want_tokens)

        encoder.encode = encode

    def _at(self, red: int) -> None:
        once = Path(self.config.output.path) / "once"
        if red == DEVICE or self.broken:
            self.broken = True
            raise RuntimeError("CUDA error: device-side assert triggered")
        if red == ABORT:
            os.abort()
        if red == SEGFAULT:
            ctypes.string_at(1)
        if red == ONCE and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
