"""Writing to a dataset: under its lease, from its newest snapshot to the next.

    with Transaction(root, "extract", run_id) as transaction:
        transaction.base         # the newest snapshot, all its moves done
        transaction.adopt(...)   # what a killed run left, as far as it is whole; the rest is removed
        transaction.commit(...)  # the next snapshot, exclusively; then its moves

A crash at any instant leaves the newest snapshot as it was or the next one whole; whoever writes next does what is
left to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline import snapshots, state, storage
from pipeline.difference import EMPTY, FAILURE, ROW
from pipeline.errors import TesseraError
from pipeline.lease import TTL_S, Lease
from pipeline.snapshots import FOLDERS, File, Kind, Snapshot
from pipeline.state import Killed

_OPEN = "_running"
_OURS = re.compile(r"(\d{8}T\d{6}-[0-9a-f]{4,}-.+\.parquet)(\.[0-9a-f]+\.tmp)?")
_WORKING = ("tasks", "pending", "plan")
"""Folders of a run that no longer matter once it is committed."""


class Transaction:
    """A context manager. Raises ``TesseraError`` if another writer is alive."""

    def __init__(self, root: str, kind: Kind, run_id: str, ttl_s: float = TTL_S) -> None:
        self.root, self.kind, self.run_id = root, kind, run_id
        self.lease = Lease(root, f"{kind} {run_id}", ttl_s)
        self.base: Snapshot | None = None
        self.killed: list[Killed] = []
        self.committed = False

    def __enter__(self) -> Self:
        self.lease.__enter__()
        try:
            self.base = snapshots.newest(self.root)
            if self.base is not None:
                snapshots.settle(self.root, self.base)
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

    def adopt(self, identity: str) -> None:
        """Find what killed runs left that fits: the same base, the same ``identity``. Remove everything else that no
        snapshot names, then announce this run."""
        for name in storage.list_files(storage.join(self.root, _OPEN), ".json"):
            run_id = name.removesuffix(".json")
            found = json.loads(storage.read_bytes(storage.join(self.root, _OPEN, name)))
            if found["base"] == self.number and found["identity"] == identity:
                self.killed.append(state.killed_run(self.root, run_id))
            else:
                self._forget_run(run_id)
        self.sweep()
        opened = {"base": self.number, "identity": identity}
        storage.publish(storage.join(self.root, _OPEN, f"{self.run_id}.json"), json.dumps(opened).encode())

    def refuse_interrupted(self) -> None:
        """Raises ``TesseraError`` if a run was killed and not continued: a commit would make its work worthless."""
        for name in storage.list_files(storage.join(self.root, _OPEN), ".json"):
            run_id = name.removesuffix(".json")
            raise TesseraError(f"run {run_id} was interrupted: continue it with `tessera extract` first")

    def discard_interrupted(self) -> None:
        """Remove what killed runs left."""
        for name in storage.list_files(storage.join(self.root, _OPEN), ".json"):
            self._forget_run(name.removesuffix(".json"))
        self.sweep()

    def sweep(self) -> None:
        """Remove our own files that neither the newest snapshot nor a killed run's records name."""
        named = {one.path for one in (self.base.files() if self.base else ())}
        named |= {file.path for one in self.killed for _, file in one.files}
        for folder in FOLDERS:
            for name in storage.list_files(storage.join(self.root, folder)):
                if _OURS.fullmatch(name) and f"{folder}/{name}" not in named:
                    storage.remove(storage.join(self.root, folder, name))

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
    ) -> Snapshot:
        """The base and the adopted files less ``drops`` (positions by number of `files`), and ``added`` by kind."""
        kept: dict[int, list[File]] = {what: list(added.get(what, ())) for what in (ROW, FAILURE, EMPTY)}
        for number, (what, file) in enumerate(self.files()):
            gone = drops.get(number)
            kept[what].append(file.without(np.concatenate(gone).tolist()) if gone else file)
        return snapshots.following(
            self.base,
            self.run_id,
            self.kind,
            identities,
            kept[ROW],
            kept[FAILURE],
            kept[EMPTY],
            forgotten,
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
        snapshots.settle(self.root, snapshot)
        self.close()

    def close(self) -> None:
        """Remove what only a continued run would need, of this run and of those that it adopted."""
        for run_id in (self.run_id, *(one.run_id for one in self.killed)):
            self._forget_run(run_id)
        self.killed = []

    def _forget_run(self, run_id: str) -> None:
        for folder in _WORKING:
            storage.remove_folder(storage.join(self.root, "_runs", run_id, folder))
        storage.remove(storage.join(self.root, _OPEN, f"{run_id}.json"))
