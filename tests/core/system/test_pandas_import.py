"""pandas is imported by what needs it, not by the first array of a process."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT


def test_pandas_is_imported_when_it_is_needed() -> None:
    subprocess.run([sys.executable, "-m", "tests.core.system.programs.use_pandas_late"], cwd=ROOT, check=True)


def test_only_workers_skip_it() -> None:
    """What lists a corpus converts times of manifests to Python objects, which differ without pandas."""
    users = {path.parent.name for path in (ROOT / "pipeline").rglob("*.py") if "pandas_import.skip" in path.read_text()}
    assert users == {"sandbox"}
