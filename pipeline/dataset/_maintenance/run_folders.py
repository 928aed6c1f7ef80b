"""Deletes the folders of old runs: their ``config.json``, ``report.json`` and ``judged.json``."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection

from pipeline.dataset.commit.data_files import RUN_ID
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.dataset.commit.transaction import Transaction

_FILE = re.compile(r"(config|report|judged)\.json(\.[0-9a-f]{32}\.tmp)?", re.ASCII)
"""What a run leaves in its folder. Its other folders are `Transaction.leftovers`."""


def remove_old(transaction: Transaction, kept: Collection[str], cutoff: datetime.datetime) -> int:
    """Deletes the files of runs that began before ``cutoff``, except runs that may be continued and the last run.

    Deletes nothing that a commit may name, so that no `Transaction.fence` is needed.

    Args:
        transaction: that of the vacuum.
        kept: ids of further runs to keep.
        cutoff: a time in UTC.

    Returns:
        number of folders.
    """
    folder = transaction.folder
    run_ids = [name for name in folder.list_folders("_runs") if RUN_ID.fullmatch(name)]
    kept_ids = {*kept, *run_ids[-1:], transaction.run_id, *transaction.announced()}
    first_kept = f"{cutoff:%Y%m%dT%H%M%S}"  # ids begin with the time at which their run began
    old_ids = [one for one in run_ids if one < first_kept and one not in kept_ids]
    return sum(_remove(folder, f"_runs/{run_id}") for run_id in old_ids)


def _remove(folder: DatasetFolder, path: str) -> bool:
    """Deletes the files of a run, and its folder if nothing else is in it. Returns whether there was anything of the
    run."""
    names = folder.list_files(path)
    found = [name for name in names if _FILE.fullmatch(name)]
    for name in found:
        folder.remove(f"{path}/{name}")
    is_empty = not names and not folder.list_folders(path)  # as a compaction leaves it
    folder.remove_empty_folder(path)
    return bool(found) or is_empty
