"""The description of a feature in the footers."""

from __future__ import annotations

from pathlib import Path

from pipeline import dataset as datasets
from tests.dataset.reader_fixtures import FAILED, FEATURES, RUN, SCHEMA


def test_the_footer_describes_the_dataset(out: Path) -> None:
    dataset = datasets.open(str(out))
    assert dataset.schema.equals(SCHEMA)
    assert dataset.schema.metadata is None
    assert (dataset.num_rows, dataset.num_failures, dataset.snapshot, dataset.run_id) == (29, 1, 1, RUN)
    assert dataset.spaces == {"clip:ab": ["photo", "caption"], "w2v:cd": ["sound"]}
    assert dataset.lineage["versions"] == {"torch": "2.11.0"}
    photo = dataset.features["photo"]
    assert {name: getattr(photo, name) for name in FEATURES["photo"]} == {
        **FEATURES["photo"],
        "emit": ("embedding", "tokens"),
    }
    assert list(dataset.features) == ["photo", "caption", "sound"]
    assert dataset.failures().to_pylist() == FAILED
