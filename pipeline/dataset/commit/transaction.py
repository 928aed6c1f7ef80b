"""A transaction: holds the lease of a version and takes it from its newest snapshot to the next.

    with Transaction(root, "extract", run_id) as transaction:
        transaction.base                     # the newest snapshot, with all its files moved
        transaction.resume_interrupted(...)  # the complete work of interrupted runs
        transaction.commit(...)              # create the next snapshot exclusively, move its files, clean up

If a process is killed at any point, the newest snapshot is either unchanged or the next one in full. The next writer
finishes the moves and the cleanup. No file that another writer may still name is deleted before the commit: a writer
that was suspended beyond its lease finds its snapshot number taken, and cannot commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.core.errors import StorageError, TesseraError
from pipeline.dataset.commit import _running, snapshots
from pipeline.dataset.commit._garbage import collect_garbage, remove_working_folders, working_folders
from pipeline.dataset.commit._running import Announcement, announcements
from pipeline.dataset.commit.data_files import File, FileKind, FileSet
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.lease import TTL_S, Lease
from pipeline.dataset.commit.snapshots import Kind, Snapshot
from pipeline.dataset.diff import index
from pipeline.dataset.diff.index import InterruptedRun


class Transaction:
    """A context manager for one writer of a version.

    Args:
        root: the version's folder.
        kind: the command that writes.
        run_id: the id of its run.
        ttl_s: seconds without a heartbeat after which a lease expires.

    Raises:
        TesseraError: on entry, if another writer is alive.
    """

    def __init__(self, root: str, kind: Kind, run_id: str, ttl_s: float = TTL_S) -> None:
        self.root, self.kind, self.run_id = root, kind, run_id
        self.folder = DatasetFolder(root)
        self.lease = Lease(root, f"{kind} {run_id}", ttl_s)
        self.base: Snapshot | None = None
        """The newest snapshot; None before the first commit."""
        self.killed: list[InterruptedRun] = []
        """Interrupted runs whose complete work is reused."""
        self.discarded: list[str] = []
        """Ids of interrupted runs whose work is not reused. Their files are deleted after the commit."""
        self.committed = False

    def __enter__(self) -> Self:
        self.lease.__enter__()
        try:
            self.base = snapshots.newest(self.root)
            if self.base is not None:
                snapshots.roll_forward(self.root, self.base)
            collect_garbage(self.folder, self.base)
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
        """Number of the newest snapshot; 0 before the first commit."""
        return self.base.number if self.base else 0

    # -- interrupted runs -------------------------------------------------------------------------

    def resume_interrupted(self, identity: str, *earlier: str) -> set[str]:
        """Finds the complete work of interrupted runs with the same base and identity, and announces this run.

        Args:
            identity: digest of the configuration.
            earlier: digests of the same configuration as older releases of Tessera computed them.

        Returns:
            the identities of the runs that are resumed.
        """
        resumed = set()
        for one in announcements(self.folder):
            if one.base == self.number and one.identity in (identity, *earlier):
                self.killed.append(index.killed_run(self.root, one.run_id))
                resumed.add(one.identity)
            else:
                self.discarded.append(one.run_id)
        _running.announce(self.folder, Announcement(self.run_id, self.number, identity))
        return resumed

    def refuse_interrupted(self) -> None:
        """Raises ``TesseraError`` if an interrupted run can be resumed, because a commit would invalidate its work."""
        for one in announcements(self.folder):
            if one.base == self.number:
                raise TesseraError(f"run {one.run_id} was interrupted: continue it with `tessera extract` first")
            self.discarded.append(one.run_id)

    def discard_interrupted(self) -> None:
        """Marks the work of all interrupted runs for deletion after the commit."""
        self.discarded.extend(one.run_id for one in announcements(self.folder))

    # -- the next snapshot ------------------------------------------------------------------------

    def files(self) -> list[tuple[FileKind, File]]:
        """Returns the files of the base, then those of resumed runs, with their kinds. Positions in this list are the
        file numbers of `diff.index`."""
        base = self.base.file_set.with_kinds() if self.base else ()
        return [*base, *(file for run in self.killed for file in run.files)]

    def next_snapshot(
        self,
        identities: dict[str, Any],
        drops: Mapping[int, Sequence[np.ndarray]],
        added: FileSet,
        forgotten: tuple[str, ...] | None = None,
        allowed_roots: tuple[str, ...] | None = None,
    ) -> Snapshot:
        """Returns a snapshot of `files` without ``drops``, and of ``added``. Does not commit it.

        Args:
            identities: see `Snapshot.identities`.
            drops: number of a file in `files` -> arrays of positions of the rows to delete.
            added: new files.
            forgotten: None: as in the base.
            allowed_roots: None: as in the base.
        """
        kept = []
        for number, (kind, file) in enumerate(self.files()):
            positions = drops.get(number)
            kept.append((kind, file.without(np.concatenate(positions).tolist()) if positions else file))
        files = FileSet.of_kinds([*added.with_kinds(), *kept])
        return snapshots.next_snapshot(self.base, self.run_id, self.kind, identities, files, forgotten, allowed_roots)

    def commit(self, snapshot: Snapshot) -> None:
        """Commits ``snapshot``, moves its files and cleans up.

        Raises:
            TesseraError: another writer committed first, because this process was suspended beyond its lease.
        """
        self.lease.check()
        if not snapshots.commit(self.root, snapshot):
            raise TesseraError(
                f"another run committed snapshot {snapshot.number} of {self.root!r} first; run again to continue"
            )
        self.base, self.committed = snapshot, True
        self._roll_forward(snapshot)
        self.close()

    def _roll_forward(self, snapshot: Snapshot) -> None:
        """Moves the files of ``snapshot``, unless another writer has committed since, which moves them first."""
        if self._is_newest(snapshot):
            try:
                snapshots.roll_forward(self.root, snapshot)
            except StorageError:
                if self._is_newest(snapshot):
                    raise

    def _is_newest(self, snapshot: Snapshot) -> bool:
        return max(snapshots.numbers(self.root)) == snapshot.number

    # -- cleanup ----------------------------------------------------------------------------------

    def fence(self) -> None:
        """Commits the content of the base again, so that no other writer can commit files that it does not name.
        Interrupted runs can still be resumed."""
        base, announced = self.base, announcements(self.folder)
        assert base is not None
        self.commit(snapshots.next_snapshot(base, self.run_id, self.kind, base.identities, base.file_set))
        for one in announced:
            if one.base == base.number:
                _running.announce(self.folder, Announcement(one.run_id, self.number, one.identity))

    def leftovers(self) -> list[str]:
        """Returns the working folders of finished runs, relative to `folder`. Delete them only after a `fence`."""
        return working_folders(self.folder, {self.run_id, *(one.run_id for one in announcements(self.folder))})

    def announced(self) -> list[str]:
        """Returns the ids of the runs that have begun and not committed."""
        return _running.announced_ids(self.folder)

    def close(self) -> None:
        """Deletes the working files and announcements of this run and of those that it resumed or discarded."""
        for run_id in (self.run_id, *(one.run_id for one in self.killed), *self.discarded):
            remove_working_folders(self.folder, run_id)
            _running.withdraw(self.folder, run_id)
        self.killed, self.discarded = [], []
        collect_garbage(self.folder, self.base)
