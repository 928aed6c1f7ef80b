"""The section ``metrics`` of a config: where the metrics of a run can be read. No part of any identity."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipeline.core.errors import NotAllowed
from pipeline.core.section import Section


class MetricsConfig(Section):
    """Where Prometheus finds the metrics of a run. Off by default, except on Ray."""

    name: str = Field(default="default", pattern=r"^[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?$")
    """Value of the label ``config`` of every metric: configs that one Prometheus sees need different names."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """TCP port at which the driver answers ``GET /metrics`` while it runs. null: none."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """Address on which it listens."""
    textfile: str | None = Field(default=None, min_length=1)
    """Local file that the driver writes for node_exporter. Its values remain when the driver has ended. null: none."""
    ray: bool = True
    """Whether the engine ``ray`` passes the metrics to the agents of its nodes."""

    @field_validator("textfile")
    @classmethod
    def _is_collected(cls, path: str | None) -> str | None:
        if path is not None and ("://" in path or not path.endswith(".prom")):
            raise NotAllowed(f"found {path!r}", "a local path that ends with .prom: node_exporter reads no other")
        return path


NO_METRICS = MetricsConfig(ray=False)
