"""The lag of a dataset: how many samples are listed and have not been extracted, and how long the oldest may wait.

A sample that waits was not listed by the last run that was complete: that run would have extracted it. So none waits
longer than since the start of that run.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.core import strict_json
from pipeline.core.errors import TesseraError
from pipeline.dataset.commit.data_files import RUN_ID
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.nightly.summary import FOLDER

_MAX_REPORTS = 400
"""Most reports that are read to find the last complete run."""


@dataclass(frozen=True)
class Lag:
    """How far a dataset is behind its corpus.

    Args:
        samples: listed and not extracted. Rows that failed for good do not count. None: that is not known, since
            the night ended before the corpus was compared with the dataset.
        since: none of them waits longer than since then. None: no sample waits.
    """

    samples: int | None
    since: datetime.datetime | None

    def plain(self, now: datetime.datetime) -> dict[str, Any]:
        """Returns it as plain values: ``samples``, ``since`` (ISO 8601), ``oldest_age_s``."""
        age_s = None if self.since is None else round(max(0.0, (now - self.since).total_seconds()), 3)
        return {
            "samples": self.samples,
            "since": None if self.since is None else self.since.isoformat(timespec="seconds"),
            "oldest_age_s": age_s,
        }


def measure(root: str, samples: int | None, latest: str | None = None) -> Lag:
    """Returns the lag after a run.

    Args:
        root: the version's folder.
        samples: samples that wait; None: it is not known.
        latest: URL of the summary of the night before. Its lag counts if no report of a complete run is left, since
            folders of old runs are deleted. None: there is none.
    """
    if samples == 0:
        return Lag(samples, None)
    since, is_complete = _last_complete(root)
    if not is_complete and latest is not None and (before := _since(latest)) is not None:
        since = before if since is None else min(since, before)
    return Lag(samples, since)


def waiting(report: dict[str, Any] | None) -> int | None:
    """Returns how many samples wait, by the report of the night's run. None: it is not known."""
    if report is None:
        return None
    found = report.get("samples_left", report.get("samples_planned"))
    return None if found is None else int(found)


def report_of(root: str, run_id: str) -> dict[str, Any] | None:
    """Returns the report of a run. None: there is none that can be read."""
    return next((report for _, _, report in _read(DatasetFolder(root), [run_id])), None)


def _last_complete(root: str) -> tuple[datetime.datetime | None, bool]:
    """Returns when the last complete run began, and True; without one, when the oldest known run did, and False."""
    oldest = None
    for started, status, _ in _reports(root):
        oldest = started
        if status == "complete":
            return oldest, True
    return oldest, False


def _since(url: str) -> datetime.datetime | None:
    """Returns since when samples waited by the summary at ``url``. None: none did, or it cannot be read."""
    root, _, path = url.rpartition(f"/{FOLDER}/")
    try:
        values = strict_json.parse(DatasetFolder(root).read(f"{FOLDER}/{path}", storage.MAX_READ_BYTES), url)
        found = datetime.datetime.fromisoformat(values.member("lag").member("since").string())
    except (OSError, ValueError, TesseraError):
        return None
    return found if found.tzinfo is not None else None


def _reports(root: str) -> Iterator[tuple[datetime.datetime, str, dict[str, Any]]]:
    """Yields start, status and content of the reports of all runs, the newest first. A damaged one is left out."""
    folder = DatasetFolder(root)
    names = sorted((one for one in folder.list_folders("_runs") if RUN_ID.fullmatch(one)), reverse=True)
    yield from _read(folder, names[:_MAX_REPORTS])


def _read(folder: DatasetFolder, names: list[str]) -> Iterator[tuple[datetime.datetime, str, dict[str, Any]]]:
    for name in names:
        path = f"_runs/{name}/report.json"
        try:
            values = strict_json.parse(folder.read(path, storage.MAX_READ_BYTES), folder.url(path))
            started = datetime.datetime.fromisoformat(values.member("started").string())
            status = values.member("status").string()
            if started.tzinfo is not None:
                yield started, status, values.plain()
        except (OSError, ValueError, TesseraError):
            continue
