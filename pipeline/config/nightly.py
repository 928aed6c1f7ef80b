"""The section ``nightly`` of a config: what `tessera nightly` does besides an extraction. It decides no values."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipeline.core import durations
from pipeline.core.errors import ConfigError, NotAllowed
from pipeline.core.section import Section
from pipeline.telemetry.webhook import WebhookConfig


class AlertConfig(Section):
    """When a night of any size has too many failures. It is an alert in the summary, and no error."""

    max_fraction: float = Field(default=0.05, ge=0, le=1)
    """Failed rows as a fraction of new rows. So that a few failures of a small night are no alert, the fraction counts
    that the failures are evidence for: the lower bound of its interval of 95 % (Wilson)."""
    min_rows: int = Field(default=3, ge=1)
    """Fewer failed rows are no alert."""
    max_deleted_fraction: float = Field(default=0.1, ge=0, le=1)
    """Stored samples that are not listed any more, as a fraction of all. Fewer than 20 are no alert."""


class NightlyConfig(Section):
    """A night: deadline, waiting, maintenance, alerts."""

    deadline: str | None = None
    """No sample is begun later than this after the start: ``4h``, ``90m``. What is finished is committed, and the next
    night continues. null: no deadline."""
    wait: str = "30s"
    """How long to wait for another night of the same dataset, at least 30 s."""
    keep: str = "7d"
    """Age of old snapshots, of the folders of old runs and of old summaries, which are deleted then."""
    small_shards: int = Field(default=16, ge=2)
    """Shards are merged if there are so many of less than a quarter of ``output.shard_bytes``."""
    max_deleted_rows: float = Field(default=0.0, ge=0, le=1)
    """Shards with deleted rows are rewritten if more than this fraction of all stored rows is deleted. 0: if any is, so
    that plain Parquet readers see every row once after each complete night. In a large dataset whose changes are
    spread over all shards, that rewrites it every night."""
    max_deleted_fraction: float = Field(default=0.5, ge=0, le=1)
    """A night ends before it deletes anything if more of the stored samples are not listed any more, and at least 20: a
    corpus that has moved must not empty the dataset."""
    alert: AlertConfig = AlertConfig()
    webhook: WebhookConfig | None = None
    """Where the summary is posted if a night fails or has alerts. null: nowhere."""

    @field_validator("deadline", "wait", "keep")
    @classmethod
    def _durations(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                durations.seconds(value, "")
            except ConfigError as error:
                raise NotAllowed(error.found, error.allowed) from None
        return value
