"""Passes a summary on: the lag is measured, metrics are set, a webhook is called. Nothing here raises."""

from __future__ import annotations

import datetime
from typing import Any

from pipeline import storage
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import TesseraError, describe
from pipeline.dataset.commit import catalog
from pipeline.nightly import lag
from pipeline.telemetry import recording, webhook

POSTED = "posted"


def add_lag(summary: dict[str, Any], config: PipelineConfig | None, root: str | None) -> None:
    """Adds the lag of the dataset to a summary.

    Args:
        config: the config of the night. None: it could not be loaded.
        root: the version's folder. None: the night ended before it was known.
    """
    if config is None:
        return
    try:
        if root is None:
            output = storage.absolute(config.output.path)
            version = config.output.version or catalog.current(output)
            root = None if version is None else storage.join(output, version)
        if root is not None:
            found = lag.measure(root, lag.waiting(summary["report"]))
            summary["lag"] = found.plain(datetime.datetime.now(datetime.UTC))
    except (OSError, TesseraError) as error:
        summary["warnings"].append(f"the lag is not known: {describe(error)}")


def set_metrics(summary: dict[str, Any]) -> None:
    """Sets the metrics of a night that has ended."""
    found = summary["lag"]
    if found["samples"] is not None:
        recording.record_lag(found["samples"], found["oldest_age_s"])
    recording.record_night(int(summary["exit_code"]), is_complete=summary["status"] == "complete")


def post(summary: dict[str, Any], config: PipelineConfig | None) -> bool:
    """Posts the summary of a night that failed or has alerts, if the config has a webhook and it was not posted yet.

    Returns:
        Whether that was tried: ``webhook`` of the summary says how it went.
    """
    hook = None if config is None else config.nightly.webhook
    if hook is None or summary["webhook"] == POSTED or not (summary["cause"] or summary["alerts"]):
        return False
    problem = webhook.post(summary, hook)
    summary["webhook"] = POSTED if problem is None else problem
    return True
