"""Config of the frames of a window that a video tokenizer takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.media import FpsSampling, UniformSampling


class UniformConfig(BaseModel):
    """Takes the frames shown at the centres of ``frames`` equal parts of the window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["uniform"] = "uniform"
    frames: int = Field(default=8, ge=1, le=4096)

    def sampling(self) -> UniformSampling:
        return UniformSampling(self.frames)


class FpsConfig(BaseModel):
    """Takes the frames shown at the times k / ``fps``, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fps"] = "fps"
    fps: float = Field(gt=0, le=1000)
    max_frames: int = Field(default=64, ge=1, le=4096)
    """Maximum frames of a window. A window with more gives this many at equal distances."""

    def sampling(self) -> FpsSampling:
        return FpsSampling(self.fps, self.max_frames)


SamplingConfig = Annotated[UniformConfig | FpsConfig, Field(discriminator="kind")]
