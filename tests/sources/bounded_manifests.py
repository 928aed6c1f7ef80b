"""Reads a manifest in a process of little memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import bounded

MB = 1 << 20


def read(path: Path, **options: Any) -> bounded.Done:
    done = bounded.run("tests.sources.programs.list_manifest", path, json.dumps(options), timeout=280)
    assert len(done.out.splitlines()) == 1
    return done
