"""Fixtures of the tokenizer tests: those of the encoder tests."""

from __future__ import annotations

from tests.encoders.conftest import checkpoints, clips, pictures

__all__ = ["checkpoints", "clips", "pictures"]
