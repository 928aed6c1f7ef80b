"""An encoder's output -> one vector of a named space. One file per head.

base.py     Head: the interface of every head
native.py   the vector as the model returns it
linear.py   a projection from a safetensors file

A new head is a new file, a line in `HeadConfig` and a line in `_MEMBERS` below.

This package imports `encoders`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.encoders.base import EncoderSpec
from pipeline.heads.base import Head
from pipeline.heads.linear import LinearConfig, LinearHead
from pipeline.heads.native import NativeConfig, NativeHead

HeadConfig = Annotated[NativeConfig | LinearConfig, Field(discriminator="kind")]

_MEMBERS: dict[type, Any] = {NativeConfig: NativeHead, LinearConfig: LinearHead}


def build(config: HeadConfig, spec: EncoderSpec) -> Head:
    """The head of ``config`` for the output of an encoder with ``spec``."""
    head: Head = _MEMBERS[type(config)](config, spec)
    return head


__all__ = ["HeadConfig", "LinearConfig", "NativeConfig", "build"]
