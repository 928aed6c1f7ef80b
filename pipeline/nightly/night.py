"""One night: prepare, extract by difference, compact, vacuum. Every outcome leaves a summary."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline import run, storage
from pipeline.config.bound import BoundConfig
from pipeline.config.models import EngineName, PipelineConfig
from pipeline.core import durations
from pipeline.core.errors import BudgetExceeded, TesseraError, describe
from pipeline.dataset import describe_versions, maintenance
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import new_run_id
from pipeline.dataset.commit.lease import Lease
from pipeline.nightly import alerts, lag, outcome, passing_on
from pipeline.nightly import summary as summaries
from pipeline.nightly.summary import Status, Step
from pipeline.run import fork_server as fork_servers
from pipeline.storage.retry import full
from pipeline.telemetry.prometheus import exporting

_DONE: dict[Step, str] = {"compact": "rewrote", "vacuum": "vacuumed"}
"""Names of `describe_versions.done_document`."""


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


class Night:
    """A night, and its summary so far.

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
        self._open = contextlib.ExitStack()

    def run(self, load: Callable[[], PipelineConfig]) -> dict[str, Any]:
        """Runs the steps, and returns the summary. Whatever is raised is in the summary before.

        Args:
            load: returns the config.

        Raises:
            BudgetExceeded: more rows failed than the config allows; all steps are done.
            ConfigError, TesseraError: the night failed.
        """
        with self.reported():
            exceeded = self._steps(load)
            if exceeded is not None:
                raise exceeded
            status: Status = "partial" if self.summary["samples_left"] else "complete"
            self.summary.update(status=status, exit_code=self._code(status), try_again=False)
            self._write()
        return self.summary

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Writes the summary of a night that begins; if the body raises, also that of a night that has failed."""
        summaries.write_local(self.summary, self.path)
        try:
            yield
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._open.close()

    def take(self, summary: dict[str, Any]) -> None:
        """Takes over the summary of a night that ran elsewhere."""
        kept = {name: self.summary[name] for name in ("config",)}
        self.summary.update({**summary, **kept})
        if self.summary["status"] == "partial":
            self.summary["exit_code"] = self._code("partial")
        summaries.write_local(self.summary, self.path)
        self._post()

    def _code(self, status: Status) -> int:
        return self.options.partial_exit if status == "partial" else outcome.DONE

    # -- steps ------------------------------------------------------------------------------------

    def _steps(self, load: Callable[[], PipelineConfig]) -> BudgetExceeded | None:
        """Runs the steps. Returns the error of a run that exceeded its budget, after all other steps."""
        config = self.config = load()
        settings = config.nightly
        self._open.enter_context(exporting(config.metrics, config.output.path))
        self.summary.update(output=config.output.path, version=config.output.version)
        asked = self.options.deadline or settings.deadline
        until = None if asked is None else self.started + durations.seconds(asked, "--deadline")
        wait_s = durations.seconds(self.options.wait or settings.wait, "--wait")
        with fork_servers.started(config, self.options.engine) as fork_server:
            bound = run.prepare(config, False, fork_server, self.options.engine)
            self.root = storage.join(bound.config.output.path, str(bound.config.output.version))
            self.summary.update(output=bound.config.output.path, version=bound.config.output.version)
            nights = storage.join(bound.config.output.path, summaries.FOLDER)
            with Lease(nights, f"night {self.summary['night']}", wait_s=wait_s):
                self.before = max(snapshots.numbers(self.root), default=0)
                exceeded = self._extract(bound, until)
                self._maintain(bound)
        self.summary["step"] = "done"
        return exceeded

    def _extract(self, bound: BoundConfig, until: float | None) -> BudgetExceeded | None:
        exceeded = None
        with self._step("extract"):
            try:
                check = partial(alerts.check_deletions, config=bound.config)
                run_id = self.summary["run_id"] = new_run_id()
                report = run.extract(bound, started=self.started, until=until, check_plan=check, run_id=run_id)
            except BudgetExceeded as error:
                report, exceeded = error.report, error
            except TesseraError as error:
                if full(error):  # what is old may be in the way of the next night
                    with contextlib.suppress(OSError, TesseraError):
                        self._vacuum(bound)
                raise
        self._add_report(report)
        self.summary["alerts"] += alerts.of_report(report, bound.config.nightly.alert)
        return exceeded

    def _maintain(self, bound: BoundConfig) -> None:
        """Compacts and vacuums. The first run of a version that is not complete yet is left as it is."""
        config, name = bound.config, str(bound.config.output.version)
        if self.summary["snapshot"] is not None:
            with self._step("compact"):
                if needs_compaction(str(self.root), config):
                    done = maintenance.compact(config.output.path, name, config.output.shard_bytes)
                    self._add("compact", [done], config)
        with self._step("vacuum"):
            if self.summary["snapshot"] is not None:
                self._vacuum(bound)

    def _vacuum(self, bound: BoundConfig) -> None:
        config = bound.config
        keep_s = durations.seconds(config.nightly.keep, "nightly.keep")
        self._add("vacuum", maintenance.vacuum(config.output.path, keep_s), config)

    @contextlib.contextmanager
    def _step(self, name: Step) -> Iterator[None]:
        """Records the step in the summary, so that it can be seen while it goes on."""
        self.summary["step"] = name
        summaries.write_local(self.summary, self.path)
        yield

    def _add(self, step: Step, done: list[maintenance.MaintenanceResult], config: PipelineConfig) -> None:
        document = describe_versions.done_document(_DONE[step], config.output.path, done)
        self.summary[step] = document["versions"]
        number = next((one.snapshot for one in done if one.version == self.summary["version"]), None)
        self.summary["snapshot"] = number or self.summary["snapshot"]

    def _add_report(self, report: dict[str, Any]) -> None:
        self.summary.update(
            report=report,
            run_id=report["run_id"],
            snapshot=report.get("snapshot"),
            samples_left=report.get("samples_left"),
            warnings=[*self.summary["warnings"], *report.get("warnings", ())],
        )

    # -- the end ----------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
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
                    self._add_report(broken)
        with contextlib.suppress(TesseraError):
            self._write()

    def _write(self) -> None:
        """Adds lag and time to the summary, writes it, and passes it on."""
        passing_on.add_state(self.summary, self.config, self.before)
        summaries.end(self.summary, _utc(time.time()))
        passing_on.set_metrics(self.summary, self.config, self.options.engine)
        if self.config is not None and self.root is not None:
            keep_s = durations.seconds(self.config.nightly.keep, "nightly.keep")
            try:
                summaries.write_to_dataset(self.summary, str(self.summary["output"]), keep_s)
            except (OSError, TesseraError) as error:
                self.summary["warnings"].append(f"the summary is not in the dataset: {describe(error)}")
        summaries.write_local(self.summary, self.path)
        self._post()

    def _post(self) -> None:
        """Calls the webhook, if it is to be called. A problem becomes a warning."""
        if self.options.posts and passing_on.post(self.summary, self.config):
            summaries.write_local(self.summary, self.path)


def needs_compaction(root: str, config: PipelineConfig) -> bool:
    """Returns whether rows of the version at ``root`` are deleted in their shards, or many shards are small."""
    snapshot = snapshots.newest(root)
    if snapshot is None:
        return False
    small = [one for one in snapshot.shards if maintenance.is_small(one, config.output.shard_bytes)]
    return any(one.deleted for one in snapshot.files()) or len(small) >= config.nightly.small_shards


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
