"""A state is plain JSON, and only one of the same rows is loaded. See also ``test_torch_reader``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset.loading import state
from pipeline.dataset.loading.sequence import Sequence, Source
from tests.dataset.loading.test_sequence import sequence, source

__all__ = ["source"]


def test_a_state_is_plain_json(source: Source) -> None:
    saved = state.save(sequence(source), 3, 40)
    assert json.loads(json.dumps(saved)) == saved
    assert (saved["epoch"], saved["position"], saved["sources"][0]["snapshot"]) == (3, 40, 1)
    assert set(saved) == {
        "format", "epoch", "position", "seed", "batch_size", "shuffle", "tail", "streams", "chunk_rows", "epoch_rows",
        "sources",
    }  # fmt: skip


def test_streams_and_chunks_come_from_the_state(source: Source) -> None:
    """Another limit of memory must not change the order of an epoch that has begun."""
    small = sequence(source, max_open_bytes=10 * int(source.index.bytes.max()))
    loaded, epoch, position = state.load(sequence(source), state.save(small, 1, 5))
    assert loaded.shape == small.shape == (8, 8)
    assert (epoch, position) == (1, 5)


def test_a_mixture_says_where_each_dataset_is(source: Source) -> None:
    saved = state.save(sequence(source, source, epoch_rows=1500), 2, 20)
    assert sum(one["rows_read"] for one in saved["sources"]) == 2 * 1500 + 20 * 32
    assert [one["epoch"] for one in saved["sources"]] == [one["rows_read"] // 1000 for one in saved["sources"]]
    loaded, *_ = state.load(sequence(source, source, epoch_rows=1500), saved)
    assert isinstance(loaded, Sequence)


@pytest.mark.parametrize("value", [{}, {"format": 1}, {"format": 1, "epoch": 1.5, "position": 0, "sources": []}])
def test_what_is_no_state(source: Source, value: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the state of the reader"):
        state.load(sequence(source), value)
