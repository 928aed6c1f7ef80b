"""Passes a summary on: snapshot and lag are added, metrics are set, a webhook is called. Nothing here raises."""

from __future__ import annotations

import datetime
from typing import Any

from pipeline import engine as engines
from pipeline import storage
from pipeline.config.models import EngineName, PipelineConfig
from pipeline.core.errors import TesseraError, describe
from pipeline.dataset.commit import catalog, snapshots
from pipeline.nightly import lag
from pipeline.nightly.summary import FOLDER
from pipeline.telemetry import recording, webhook

POSTED = "posted"


def add_state(summary: dict[str, Any], config: PipelineConfig | None, before: int | None) -> None:
    """Adds to a summary what readers see after the night, and how far that is behind the corpus.

    Args:
        config: the config of the night. None: it could not be loaded.
        before: number of the newest snapshot before the night. None: the night ended before it was known.
    """
    if config is None:
        return
    try:
        output = storage.absolute(config.output.path)
        version = summary["version"] or catalog.current(output)
        if version is None:
            return
        root = storage.join(output, version)
        number = max(snapshots.numbers(root), default=None)
        latest = storage.join(output, f"{FOLDER}/latest.json")
        found = lag.measure(root, lag.waiting(summary["report"]), latest)
        summary.update(version=version, snapshot=number, committed=before is not None and number != (before or None))
        summary["lag"] = found.plain(datetime.datetime.now(datetime.UTC))
    except (OSError, TesseraError) as error:
        summary["warnings"].append(f"snapshot and lag are not known: {describe(error)}")


def set_metrics(summary: dict[str, Any], config: PipelineConfig | None, engine: EngineName | None) -> None:
    """Sets the metrics of a night that has ended, and exports them.

    Args:
        engine: what ran the pipeline, instead of ``engine.kind``.
    """
    found = summary["lag"]
    if found["samples"] is not None:
        recording.record_lag(found["samples"], found["oldest_age_s"])
    recording.record_night(summary["status"], int(summary["exit_code"]))
    if config is not None:
        engines.export_gauges(engine or config.engine.kind, config.compute, config.metrics)


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
