"""The versions of a dataset, and the current one."""

from __future__ import annotations

from pathlib import Path

from pipeline.dataset.commit import catalog, snapshots
from tests.dataset.commit.test_snapshots import make, put


def test_versions(tmp_path: Path) -> None:
    out = str(tmp_path)
    assert (catalog.current(out), catalog.versions(out), catalog.next_version(out)) == (None, [], "v1")
    for name in ("v1", "v3", "mine"):
        snapshots.commit(f"{out}/{name}", make(None))
    put(tmp_path, "v4/data/x.parquet")  # written by a run that was killed before its first commit
    assert catalog.versions(out) == ["mine", "v1", "v3"]
    assert catalog.next_version(out) == "v4"
    catalog.make_current(out, "v1")
    assert catalog.current(out) == "v1"
    catalog.make_current(out, "v4")
    assert catalog.current(out) == "v1", "until v4 has a commit"
    snapshots.commit(f"{out}/v4", make(None))
    assert catalog.current(out) == "v4"
