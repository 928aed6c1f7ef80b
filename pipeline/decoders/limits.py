"""How long and how much memory decoding may take."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LimitsConfig(BaseModel):
    """Decides which rows fail, never the values of those that do not: no part of a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row_seconds: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds that opening, decoding or tokenizing may take for one feature of one row, reading included; more is a
    failure: ``timeout``, or ``io`` if the storage failed meanwhile and was asked again.
    Files that are decoded whole are fetched in it: 120 s is 6 GB at 50 MB/s."""
    memory_bytes: int = Field(default=4 << 30, ge=64 << 20)
    """Bytes that it may take beyond what its process had at most 20 ms before; more is a failure (``memory``). The
    largest picture that ``image.max_pixels`` lets through takes 3.2 GiB where it has transparency."""
    block_bytes: int = Field(default=512 << 20, ge=1)
    """Estimated bytes of decoded inputs (and of text tokens) that a process holds at a time. A block that needs more is
    decoded and encoded in several parts; a row that needs more is processed alone. With a GPU, Ray merges blocks to
    ``block_rows`` rows before they are encoded."""
    isolate: bool = True
    """False: decoders run in Ray's own workers. A hang then lasts, a crash ends the worker, and no limit holds."""
