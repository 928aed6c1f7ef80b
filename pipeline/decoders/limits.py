"""Limits on the time and the memory that decoding takes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LimitsConfig(BaseModel):
    """Limits that decide which rows fail. They do not change values and are not part of the fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row_seconds: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Maximum seconds that opening, decoding or tokenizing takes for one feature of one row, reading included. More is
    a failure: ``timeout``, or ``io`` if requests to the storage failed and were retried meanwhile. Fetching a file that
    is decoded whole counts too: 120 s is 6 GB at 50 MB/s."""
    memory_bytes: int = Field(default=4 << 30, ge=64 << 20)
    """Maximum bytes that it allocates in addition to those that its process had at most 20 ms before; more is a failure
    (``memory``). The largest picture that ``image.max_pixels`` allows takes 3.2 GiB if it has transparency."""
    block_bytes: int = Field(default=512 << 20, ge=1)
    """Estimated maximum bytes of decoded inputs (and of text tokens) in one process. A block that needs more is
    decoded and encoded in several parts; a row that needs more is processed alone. With a GPU, Ray merges blocks to
    ``block_rows`` rows before they are encoded."""
    isolate: bool = True
    """True: decoders run in subprocesses. False: they run in Ray's workers; a hang is then not ended, a crash ends the
    worker, and no limit is enforced."""
