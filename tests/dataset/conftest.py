"""Fixtures that several test modules use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataset.reader_fixtures import write


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("out")
    write(str(root / "v1"))
    return root
