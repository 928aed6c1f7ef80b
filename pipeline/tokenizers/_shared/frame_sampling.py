"""Which frames of a window a video tokenizer takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.media import FpsSampling, UniformSampling


class UniformConfig(BaseModel):
    """The frames shown at the middles of ``frames`` equal slices of the window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["uniform"] = "uniform"
    frames: int = Field(default=8, ge=1, le=4096)

    def sampling(self) -> UniformSampling:
        return UniformSampling(self.frames)


class FpsConfig(BaseModel):
    """The frames shown at the times k / fps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fps"] = "fps"
    fps: float = Field(gt=0, le=1000)
    max_frames: int = Field(default=64, ge=1, le=4096)
    """A window that has more gives this many, evenly spread."""

    def sampling(self) -> FpsSampling:
        return FpsSampling(self.fps, self.max_frames)


SamplingConfig = Annotated[UniformConfig | FpsConfig, Field(discriminator="kind")]
