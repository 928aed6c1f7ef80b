"""Writing to a dataset: under its lease, from its newest snapshot to the next.

    with Transaction(root, "extract", run_id) as transaction:
        transaction.base         # the newest snapshot, all its moves done
        transaction.adopt(...)   # what a killed run left, as far as it is whole
        transaction.commit(...)  # the next snapshot, exclusively; then its moves, then what nobody needs is removed

A crash at any instant leaves the newest snapshot as it was or the next one whole; whoever writes next does what is
left to do. Nothing that another writer may still name is removed before the commit: one that slept beyond its lease
finds its number taken, and cannot commit any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.core import strict_json
from pipeline.core.errors import StorageError, TesseraError
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit.data_files import FOLDERS_ON_DISK, RUN_ID, File, current_path
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.lease import TTL_S, Lease
from pipeline.dataset.commit.snapshots import Kind, Snapshot
from pipeline.dataset.diff import index
from pipeline.dataset.diff.columns import EMPTY, FAILURE, ROW
from pipeline.dataset.diff.index import InterruptedRun
from pipeline.storage.local_files import RefusedFile

_OPEN = "_running"
_OPEN_BYTES = 1 << 16
RUN_FILE = re.compile(rf"({RUN_ID.pattern})-.+\.parquet(\.[0-9a-f]+\.tmp)?")
"""A file that a run wrote: its run, and what a write that broke off is named."""
_WORKING = ("tasks", "pending", "plan")
"""Folders of a run that no longer matter once it is committed."""


class Transaction:
    """A context manager. Raises ``TesseraError`` if another writer is alive."""

    def __init__(self, root: str, kind: Kind, run_id: str, ttl_s: float = TTL_S) -> None:
        self.root, self.kind, self.run_id = root, kind, run_id
        self.folder = DatasetFolder(root)
        self.lease = Lease(root, f"{kind} {run_id}", ttl_s)
        self.base: Snapshot | None = None
        self.killed: list[InterruptedRun] = []
        self.discarded: list[str] = []
        """Interrupted runs that nothing is taken from. Their files go once this transaction has committed."""
        self.committed = False

    def __enter__(self) -> Self:
        self.lease.__enter__()
        try:
            self.base = snapshots.newest(self.root)
            if self.base is not None:
                snapshots.roll_forward(self.root, self.base)
            self._collect_garbage()
        except BaseException as error:
            self.lease.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lease.__exit__(kind, error, trace)

    @property
    def number(self) -> int:
        return self.base.number if self.base else 0

    def resume_interrupted(self, identity: str, *earlier: str) -> set[str]:
        """Find what killed runs left that fits: the same base, the same ``identity`` or one of ``earlier``, which are
        the same in the words of an older Tessera. Then announce this run.

        Returns:
            the identities of the runs that fit.
        """
        fitting = set()
        for run_id, opened in sorted(self._interrupted()):  # by time
            if opened["base"] == self.number and opened["identity"] in (identity, *earlier):
                self.killed.append(index.killed_run(self.root, run_id))
                fitting.add(opened["identity"])
            else:
                self.discarded.append(run_id)
        self._announce(self.run_id, identity)
        return fitting

    def refuse_interrupted(self) -> None:
        """Raises ``TesseraError`` if a run was killed and may be continued: a commit would make its work worthless."""
        for run_id, opened in self._interrupted():
            if opened["base"] == self.number:
                raise TesseraError(f"run {run_id} was interrupted: continue it with `tessera extract` first")
            self.discarded.append(run_id)

    def discard_interrupted(self) -> None:
        """With the commit, what killed runs left is removed."""
        self.discarded.extend(run_id for run_id, _ in self._interrupted())

    def fence(self) -> None:
        """Commit the base once more: from now on nobody names what it does not. Interrupted runs stay adoptable."""
        base, opened = self.base, self._interrupted()
        assert base is not None
        lists = (list(base.shards), list(base.failures), list(base.empty))
        self.commit(snapshots.next_snapshot(base, self.run_id, self.kind, base.identities, *lists))
        for run_id, one in opened:
            if one["base"] == base.number:
                self._announce(run_id, one["identity"])

    def leftovers(self) -> list[str]:
        """Working folders of runs that are over, below `folder`. To be removed behind a `fence`."""
        going_on = {self.run_id, *(run_id for run_id, _ in self._interrupted())}
        found = []
        for run_id in self.folder.list_folders("_runs"):
            if RUN_ID.fullmatch(run_id) and run_id not in going_on:
                names = self.folder.list_folders(f"_runs/{run_id}")
                found += [f"_runs/{run_id}/{name}" for name in names if name in _WORKING]
        return found

    def _interrupted(self) -> list[tuple[str, dict[str, Any]]]:
        """Runs that were announced and did not end, each with its base and its identity.

        Raises:
            ConfigError: an announcement that no run writes.
        """
        found = []
        for run_id in self._announced():
            path = f"{_OPEN}/{run_id}.json"
            opened = strict_json.parse(self.folder.read(path, _OPEN_BYTES), self.folder.url(path))
            base, identity = opened.member("base").integer(), opened.member("identity").string()
            found.append((run_id, {"base": base, "identity": identity}))
        return found

    def _announced(self) -> list[str]:
        """What no run could be called is not a run's."""
        names = (name.removesuffix(".json") for name in self.folder.list_files(_OPEN, ".json"))
        return [name for name in names if RUN_ID.fullmatch(name)]

    def _announce(self, run_id: str, identity: str) -> None:
        opened = {"base": self.number, "identity": identity}
        self.folder.publish(f"{_OPEN}/{run_id}.json", json.dumps(opened).encode())

    def _collect_garbage(self) -> None:
        """Remove our own files that no snapshot names and whose run is over: none can come to name them.

        Also of a writer that slept while others committed that is true. A run writes once it is announced, and is
        announced until another run or itself has committed; so the files are listed before the runs, and the snapshots
        last. What a later snapshot names it has from one that is there, or from a run that goes on.
        """
        named = {one.path for one in (self.base.files() if self.base else ())}
        found = [f"{folder}/{name}" for folder in FOLDERS_ON_DISK for name in self.folder.list_files(folder)]
        going_on = {*self._announced()}
        left = []
        for path in found:
            ours = RUN_FILE.fullmatch(path.rpartition("/")[2])
            if ours and ours[1] not in going_on and current_path(path) not in named:
                left.append(path)
        if not left:
            return
        for number in snapshots.numbers(self.root):
            try:
                named |= {one.path for one in snapshots.read(self.root, number).files()}
            except FileNotFoundError:  # vacuumed in this moment, with what only it named
                continue
        for path in left:
            if current_path(path) not in named:
                self.folder.remove(path)

    def files(self) -> list[tuple[int, File]]:
        """What `state` numbers: the files of the base, then those of killed runs; each with what it holds."""
        base = self.base
        lists = [(ROW, base.shards), (FAILURE, base.failures), (EMPTY, base.empty)] if base else []
        return [
            *((what, file) for what, files in lists for file in files),
            *((what, file) for one in self.killed for what, file in one.files),
        ]

    def next_snapshot(
        self,
        identities: dict[str, Any],
        drops: Mapping[int, Sequence[np.ndarray]],
        added: Mapping[int, Sequence[File]],
        forgotten: tuple[str, ...] | None = None,
        allowed_roots: tuple[str, ...] | None = None,
    ) -> Snapshot:
        """The base and the adopted files less ``drops`` (positions by number of `files`), and ``added`` by kind."""
        kept: dict[int, list[File]] = {what: list(added.get(what, ())) for what in (ROW, FAILURE, EMPTY)}
        for number, (what, file) in enumerate(self.files()):
            gone = drops.get(number)
            kept[what].append(file.without(np.concatenate(gone).tolist()) if gone else file)
        return snapshots.next_snapshot(
            self.base,
            self.run_id,
            self.kind,
            identities,
            kept[ROW],
            kept[FAILURE],
            kept[EMPTY],
            forgotten,
            allowed_roots,
        )

    def commit(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the newest, then do its moves and clear up.

        Raises:
            TesseraError: another writer committed first, since this process slept beyond its lease.
        """
        self.lease.check()
        if not snapshots.commit(self.root, snapshot):
            raise TesseraError(
                f"another run committed snapshot {snapshot.number} of {self.root!r} first; run again to continue"
            )
        self.base, self.committed = snapshot, True
        self._settle(snapshot)
        self.close()

    def _settle(self, snapshot: Snapshot) -> None:
        """Its moves; none once another writer has committed, which has done these first and others since."""
        if self._is_newest(snapshot):
            try:
                snapshots.roll_forward(self.root, snapshot)
            except StorageError:
                if self._is_newest(snapshot):
                    raise

    def _is_newest(self, snapshot: Snapshot) -> bool:
        return max(snapshots.numbers(self.root)) == snapshot.number

    def close(self) -> None:
        """Remove what only a continued run would need, of this run, of those that it adopted or discarded."""
        for run_id in (self.run_id, *(one.run_id for one in self.killed), *self.discarded):
            self._forget_run(run_id)
        self.killed, self.discarded = [], []
        self._collect_garbage()

    def _forget_run(self, run_id: str) -> None:
        for folder in _WORKING:
            try:
                self.folder.remove_folder(f"_runs/{run_id}/{folder}")
            except RefusedFile:  # the run's folder is a link or a pipe: delete it, not its target
                self.folder.remove(f"_runs/{run_id}")
        self.folder.remove(f"{_OPEN}/{run_id}.json")
