"""An encoder's output -> one vector of a named space. One file for each member.

base.py   Head

It imports `encoders`, whose output it takes.
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
    """The head of ``config`` behind an encoder of ``spec``."""
    head: Head = _MEMBERS[type(config)](config, spec)
    return head


__all__ = ["HeadConfig", "LinearConfig", "NativeConfig", "build"]
