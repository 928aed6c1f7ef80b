"""Arguments of readers are checked, and mixtures read what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import dataset
from pipeline.core.errors import ConfigError
from pipeline.dataset.loading.torch_reader import TorchReader
from tests.dataset.loading import written
from tests.dataset.loading.test_torch_reader import check_dealt, numbers_of

ROWS = [written.row(i) for i in range(900)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Datasets of rows 0 to 399, 400 to 649, and 650 to 899."""
    parts = [ROWS[:400], ROWS[400:650], ROWS[650:]]
    return [written.write(tmp_path_factory.mktemp(f"part{i}"), part, shards=2) for i, part in enumerate(parts)]


def mixed(paths: list[str], **options: Any) -> TorchReader:
    options = {"shuffle": True, "collate": numbers_of, "epoch_rows": 800, **options}
    weights = options.pop("weights", (0.5, 0.3, 0.2))
    datasets = [(dataset.open(path), weight) for path, weight in zip(paths, weights, strict=True)]
    return dataset.mix(datasets, ["number"], 16, **options)


def test_a_mixture_has_the_shares_of_its_datasets(paths: list[str]) -> None:
    one = mixed(paths)
    epochs = [list(one) for _ in range(10)]
    assert {len(batches) for batches in epochs} == {50}
    rows = [row for batches in epochs for batch in batches for row in batch]
    counts = Counter((row >= 400) + (row >= 650) for row in rows)
    assert [counts[i] / 8000 for i in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert one.state_dict()["sources"][0]["rows_read"] == counts[0]
    assert one.state_dict()["sources"][0]["epoch"] == counts[0] // 400
    often = [Counter(rows)[row] for row in range(400)]
    assert max(often) - min(often) <= 3  # streams end at slightly different times


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_reads_the_same_mixture(paths: list[str], world_size: int) -> None:
    expected = list(mixed(paths, epoch=2))
    ranks = [list(mixed(paths, epoch=2, rank=rank, world_size=world_size)) for rank in range(world_size)]
    check_dealt([ranks[r][i] for i in range(len(ranks[0])) for r in range(world_size)], expected, world_size)


def test_a_mixture_resumes(paths: list[str]) -> None:
    first = mixed(paths, rank=1, world_size=2)
    expected = list(mixed(paths))
    for _, _ in zip(range(9), first, strict=False):
        pass
    state = first.state_dict()
    ranks = [mixed(paths, rank=rank, world_size=3) for rank in range(3)]
    for one in ranks:
        one.load_state_dict(state)
    read = [list(one) for one in ranks]
    check_dealt([read[rank][i] for i in range(len(read[0])) for rank in range(3)], expected[18:], 3)
    for options, message in (
        ({"weights": (0.5, 0.2, 0.3)}, "saved with weight=0.3, this reader has 0.2"),
        ({"epoch_rows": 100}, "saved with epoch_rows=800, this reader has 100"),
    ):
        with pytest.raises(ConfigError, match=message):
            mixed(paths, **options).load_state_dict(state)
    with pytest.raises(ConfigError, match="saved with datasets=3, this reader has 2"):
        mixed(paths[:2], weights=(0.5, 0.5)).load_state_dict(state)


def test_parts_of_one_dataset(paths: list[str]) -> None:
    """Rows with photos four times as often as those with words."""
    data = dataset.open(paths[0])
    photos, words = pc.field("photo_embedding").is_valid(), ~pc.field("photo_embedding").is_valid()
    one = dataset.mix([(data, 4, photos), (data, 1, words)], ["number"], 20, collate=numbers_of, epoch_rows=4000)
    rows = [row for batch in one for row in batch]
    assert sum(row % 3 > 0 for row in rows) / len(rows) == pytest.approx(0.8, abs=0.02)


def test_without_epoch_rows_an_epoch_has_all(paths: list[str]) -> None:
    everything = [(dataset.open(path), 1) for path in paths]
    assert dataset.mix(everything, ["number"], 16).report()["rows"] == 900
    data = dataset.open(paths[0])
    assert dataset.mix([(data, 1)], ["number"], 16).report()["rows"] == 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: found 0; a whole number, at least 1"),
        ({"batch_size": True}, "batch_size: found True"),
        ({"streams": 0}, "streams: found 0"),
        ({"seed": -1}, "seed: found -1"),
        ({"tail": "pad"}, "tail: found 'pad'; one of: short, drop, repeat"),
        ({"on_error": "ignore"}, "on_error: found 'ignore'; one of: raise, skip"),
        ({"rank": 3}, "world_size: not given"),
        ({"rank": 3, "world_size": 2}, "rank: 3 of 2"),
        ({"columns": ["nothing"]}, "columns: there is no column 'nothing'"),
        ({"filter": pc.field("nothing") == 1}, "filter: "),
        ({"batch_size": None}, "shuffle: given without batch_size"),
    ],
)
def test_wrong_arguments(paths: list[str], options: dict[str, Any], message: str) -> None:
    options = {"columns": ["number"], "batch_size": 4, "shuffle": True, **options}
    with pytest.raises(ConfigError, match=message):
        dataset.open(paths[0]).to_torch(**options)


def test_an_unknown_option(paths: list[str]) -> None:
    data: Any = dataset.open(paths[0])
    with pytest.raises(TypeError, match="unknown option 'suffle'; one of: chunk_rows, collate"):
        data.to_torch(["number"], batch_size=4, suffle=True)
    with pytest.raises(TypeError, match="unknown option 'epoch_rows'"):
        data.to_torch(["number"], batch_size=4, epoch_rows=9)


def test_one_dataset_twice_is_read_in_two_orders(paths: list[str]) -> None:
    data = dataset.open(paths[0])
    one = dataset.mix([(data, 1), (data, 1)], ["number"], 16, shuffle=True, collate=numbers_of, epoch_rows=800)
    rows = [row for batch in one for row in batch]
    last: dict[int, int] = {}
    near = 0
    for i, row in enumerate(rows):
        near += row in last and i - last[row] < 40
        last[row] = i
    assert near < 80  # some 400 * 2 * 40 / 800 by chance; with equal orders nearly all 400


def test_wrong_mixtures(paths: list[str], tmp_path: Path) -> None:
    data = dataset.open(paths[0])
    for rows in (0, -5, 1.5):
        with pytest.raises(ConfigError, match="epoch_rows: found"):
            dataset.mix([(data, 1)], ["number"], 4, epoch_rows=rows)  # type: ignore[typeddict-item]
    with pytest.raises(ConfigError, match="datasets: none"):
        dataset.mix([], ["number"], 4)
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="weights: "):
            dataset.mix([(data, weight)], ["number"], 4)
    with pytest.raises(ConfigError, match=r"weights: \[1, 1e-09\]; each at least 1/4096 of their sum"):
        list(dataset.mix([(data, 1), (data, 1e-9)], ["number"], 4))
    with pytest.raises(ConfigError, match="datasets: one has no rows to read"):
        dataset.mix([(data, 1), (data, 1, pc.field("number") < 0)], ["number"], 4)
    with pytest.raises(ConfigError, match="streams: 64, but a dataset has 1 rows"):
        dataset.mix([(data, 1), (data, 1, pc.field("number") == 0)], ["number"], 4, streams=64)
    at = written.SCHEMA.get_field_index("number")
    other = written.write(tmp_path, ROWS[:9], schema=written.SCHEMA.set(at, pa.field("number", pa.int32())))
    with pytest.raises(ConfigError, match="datasets: their columns have different types"):
        list(dataset.mix([(data, 1), (dataset.open(other), 1)], ["number"], 4))


def test_a_small_dataset_makes_a_mixture_mix_less(paths: list[str]) -> None:
    few = (dataset.open(paths[1]), 1.0, pc.field("number") < 403)
    with pytest.warns(UserWarning, match="in 3 streams instead of 64, since one has 3 rows: the others are mixed less"):
        dataset.mix([(dataset.open(paths[0]), 1.0), few], ["number"], 8, shuffle=True)
