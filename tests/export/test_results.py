"""What commands print of an export and of a card."""

from __future__ import annotations

import io
from dataclasses import replace

from pipeline.core.terminal import Console
from pipeline.export import CardResult, ExportResult

DONE = ExportResult(
    dataset="OUT",
    version="v1",
    snapshot=3,
    created="2026-01-01T00:00:00+00:00",
    run_id="r",
    format="lance",
    output="/tmp/x",
    rows=1,
    columns=("a", "b"),
    files=2,
    bytes=1500,
    pinned=True,
    seconds=0.5,
)
CARD = CardResult("OUT", "v1", 3, "2026-01-01T00:00:00+00:00", "r", "OUT", ("README.md", "croissant.json"), 5, 1)


def _shown(result: ExportResult | CardResult) -> list[str]:
    file = io.StringIO()
    result.show(Console(file=file, width=200))
    return file.getvalue().splitlines()


def test_an_export() -> None:
    assert _shown(DONE) == [
        "exported 1 row and 2 columns of snapshot 3 of version v1: lance, 2 files, 1.5 kB",
        "output: /tmp/x",
    ]
    assert _shown(replace(DONE, warnings=("not \x1bpinned",)))[1] == r"warning: not \x1bpinned"
    assert DONE.document()["snapshot"] == 3
    assert DONE.document()["columns"] == ("a", "b")


def test_a_card() -> None:
    assert _shown(CARD) == [
        "wrote README.md and croissant.json for snapshot 3 of version v1: 5 rows in 1 shard",
        "output: OUT",
    ]
    assert CARD.document()["files"] == ("README.md", "croissant.json")
