"""The record of a night: its summary so far, which is written, completed and passed on."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.config.models import EngineName, PipelineConfig
from pipeline.core import durations
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.dataset.commit.lease import InUse
from pipeline.nightly import lag, outcome, passing_on
from pipeline.nightly import summary as summaries
from pipeline.nightly.summary import Status
from pipeline.telemetry.prometheus import exporting


@dataclass(frozen=True)
class NightOptions:
    """Options of the command, which replace values of the section ``nightly``.

    Args:
        engine: what runs the pipeline, instead of ``engine.kind``.
        deadline: instead of ``nightly.deadline``.
        wait: instead of ``nightly.wait``.
        partial_exit: exit code of a night that its deadline cut short.
        posts: post the summary of a night that fails to ``nightly.webhook``.
    """

    engine: EngineName | None = None
    deadline: str | None = None
    wait: str | None = None
    partial_exit: int = outcome.DONE
    posts: bool = True


class NightRecord:
    """The summary of a night so far.

    Args:
        config: path of the config, for the summary.
        path: where the summary is written on this machine.
        options: options of the command.
        started: when the command began, in seconds since the epoch.
    """

    def __init__(self, config: str, path: str, options: NightOptions, started: float) -> None:
        self.path, self.options, self.started = path, options, started
        self.summary = summaries.begin(config, _utc(started))
        self.root: str | None = None
        """The version's folder, as soon as it is known."""
        self.config: PipelineConfig | None = None
        self.before: int | None = None
        """Number of the newest snapshot before the night; 0: there was none."""
        self._open, self._exports, self._is_lost = contextlib.ExitStack(), False, False

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Writes the summary of a night that begins; if the body raises, also that of a night that has failed."""
        try:
            self.write_local()
            yield
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self._open.close()

    def take(self, summary: dict[str, Any]) -> None:
        """Takes over the summary of a night that ran elsewhere."""
        self.summary.update({**summary, "config": self.summary["config"]})
        if self.summary["status"] == "partial":
            self.summary["exit_code"] = self.code("partial")
        self.write_local()
        self._post()

    def code(self, status: Status) -> int:
        """Returns the exit code of a night that has not failed."""
        return self.options.partial_exit if status == "partial" else outcome.DONE

    def add_report(self, report: dict[str, Any]) -> None:
        """Adds the report of the night's run."""
        self.summary.update(
            report=report,
            run_id=report["run_id"],
            snapshot=report.get("snapshot"),
            samples_left=report.get("samples_left"),
            warnings=[*self.summary["warnings"], *report.get("warnings", ())],
        )

    def fail(self, error: BaseException) -> None:
        """Completes the summary of a night that ``error`` ended, and writes it. Raises nothing."""
        code = outcome.exit_code(error)
        self.summary.update(
            status="failed",
            exit_code=code,
            try_again=code == outcome.AGAIN,
            cause=outcome.cause(error),
            advice=outcome.advice(error, self.summary["output"]),
        )
        with contextlib.suppress(Exception):  # the cause may also prevent this
            if self.root is not None and self.summary["run_id"] and self.summary["report"] is None:
                broken = lag.report_of(self.root, self.summary["run_id"])
                if broken is not None:
                    self.add_report(broken)
        summaries.end(self.summary, _utc(time.time()))
        self.write_local()  # what follows may take long, and the process may be killed
        may_export = not isinstance(error, InUse)
        with contextlib.suppress(Exception):
            self.write(may_export)

    def write(self, may_export: bool = True) -> None:
        """Adds state and time to the summary, writes it, and passes it on.

        Args:
            may_export: export metrics. False: another night of this dataset does.
        """
        passing_on.add_state(self.summary, self.config, self.before)
        summaries.end(self.summary, _utc(time.time()))
        if self.config is not None and (self.root is not None or self.summary["snapshot"] is not None):
            keep_s = durations.seconds(self.config.nightly.keep, "nightly.keep")
            try:
                summaries.write_to_dataset(self.summary, storage.absolute(self.config.output.path), keep_s)
            except (OSError, TesseraError) as error:
                self.summary["warnings"].append(f"the summary is not in the dataset: {describe(error)}")
        self.write_local()
        self._post()
        if may_export and self.config is not None:
            with contextlib.suppress(Exception):  # the outcome of a night does not depend on its metrics
                self.export(self.config)
                passing_on.set_metrics(self.summary, self.config, self.options.engine)

    def write_local(self) -> None:
        """Writes the summary on this machine. If that fails, it is a warning, since the night has other readers."""
        try:
            summaries.write_local(self.summary, self.path)
        except ConfigError as error:
            if not self._is_lost:
                self.summary["warnings"].append(str(error))
            self._is_lost = True

    def export(self, config: PipelineConfig) -> None:
        """Exports metrics until the end of the night. Call it while no other night of this dataset does."""
        if not self._exports:
            self._open.enter_context(exporting(config.metrics, config.output.path))
            self._exports = True

    def _post(self) -> None:
        """Calls the webhook, if it is to be called. A problem becomes a warning."""
        if self.options.posts and passing_on.post(self.summary, self.config):
            self.write_local()


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
