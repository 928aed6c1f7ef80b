"""One night: prepare, extract by difference, vacuum, compact. Every outcome leaves a summary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pipeline import run, storage
from pipeline.config.bound import BoundConfig
from pipeline.config.models import PipelineConfig
from pipeline.core import durations
from pipeline.core.errors import BudgetExceeded, TesseraError, describe
from pipeline.dataset import describe_versions, maintenance
from pipeline.dataset.commit import catalog, snapshots
from pipeline.dataset.commit.data_files import new_run_id
from pipeline.dataset.commit.folder import check_version
from pipeline.dataset.commit.lease import Lease
from pipeline.nightly import alerts
from pipeline.nightly import summary as summaries
from pipeline.nightly.record import NightRecord
from pipeline.nightly.summary import Status, Step
from pipeline.run import fork_server as fork_servers
from pipeline.storage.retry import full

_DONE: dict[Step, str] = {"compact": "rewrote", "vacuum": "vacuumed"}
"""Names of `describe_versions.done_document`."""


class Night(NightRecord):
    """A night on this machine or, as the program of a job, on a cluster. Arguments as for `NightRecord`."""

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
            self.summary.update(status=status, exit_code=self.code(status), try_again=False)
            self.write()
        return self.summary

    def _steps(self, load: Callable[[], PipelineConfig]) -> BudgetExceeded | None:
        """Runs the steps. Returns the error of a run that exceeded its budget, after all other steps."""
        config = self.config = load()
        settings = config.nightly
        self.summary.update(output=config.output.path, version=config.output.version)
        asked = self.options.deadline or settings.deadline
        until = None if asked is None else self.started + durations.seconds(asked, "--deadline")
        wait_s = durations.seconds(self.options.wait or settings.wait, "--wait")
        with fork_servers.started(config, self.options.engine) as fork_server:
            bound = run.prepare(config, False, fork_server, self.options.engine)
            self.root = storage.join(bound.config.output.path, str(bound.config.output.version))
            self.summary.update(output=bound.config.output.path, version=bound.config.output.version)
            nights = storage.join(bound.config.output.path, summaries.FOLDER)
            check_version(bound.config.output.path, summaries.FOLDER)  # refuses a link
            with Lease(nights, f"night {self.summary['night']}", wait_s=wait_s):
                self.export(bound.config)
                self.before = max(snapshots.numbers(self.root), default=0)
                exceeded = self._extract(bound, until)
                self._maintain(bound, until)
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
        self.add_report(report)
        self.summary["alerts"] += alerts.of_report(report, bound.config.nightly.alert)
        return exceeded

    def _maintain(self, bound: BoundConfig, until: float | None) -> None:
        """Vacuums, and compacts if there is time. The first run of a version that is not complete is left as it is."""
        config, name = bound.config, str(bound.config.output.version)
        if self.summary["snapshot"] is None:
            return
        with self._step("vacuum"):
            self._vacuum(bound)
        if until is not None and time.time() >= until:
            return
        with self._step("compact"):
            if needs_compaction(str(self.root), config):
                self._add("compact", [maintenance.compact(config.output.path, name, config.output.shard_bytes)], config)

    def _vacuum(self, bound: BoundConfig) -> None:
        """Vacuums all versions. What is wrong with another version than the night's is a warning."""
        config, own = bound.config, str(bound.config.output.version)
        keep_s, done = durations.seconds(config.nightly.keep, "nightly.keep"), list[maintenance.MaintenanceResult]()
        for name in sorted(catalog.versions(config.output.path), key=lambda one: one != own):
            try:
                done += maintenance.vacuum(config.output.path, keep_s, name)
            except TesseraError as error:
                if name == own:
                    raise
                self.summary["warnings"].append(f"version {name} was not vacuumed: {describe(error)}")
        self._add("vacuum", done, config)

    @contextlib.contextmanager
    def _step(self, name: Step) -> Iterator[None]:
        """Records the step in the summary, so that it can be seen while it goes on."""
        self.summary["step"] = name
        self.write_local()
        yield

    def _add(self, step: Step, done: list[maintenance.MaintenanceResult], config: PipelineConfig) -> None:
        document = describe_versions.done_document(_DONE[step], config.output.path, done)
        self.summary[step] = document["versions"]
        number = next((one.snapshot for one in done if one.version == self.summary["version"]), None)
        self.summary["snapshot"] = number or self.summary["snapshot"]


def needs_compaction(root: str, config: PipelineConfig) -> bool:
    """Returns whether more rows of the version at ``root`` are deleted in their shards than ``nightly`` allows, or many
    shards are small."""
    snapshot = snapshots.newest(root)
    if snapshot is None:
        return False
    small = [one for one in snapshot.shards if maintenance.is_small(one, config.output.shard_bytes)]
    deleted, rows = sum(len(one.deleted) for one in snapshot.files()), sum(one.rows for one in snapshot.files())
    return deleted > config.nightly.max_deleted_rows * rows or len(small) >= config.nightly.small_shards
