"""Sizes of pools: what fits no node is refused, and actors never fill a node."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.engine.ray.pools import TASK_CPUS, Node, PoolSize, sizes, without_room
from pipeline.engine.spec import WorkersSpec


def _sizes(pools: dict[str, Any], nodes: list[Node], on_gpu: bool = False, blocks: int = 10_000) -> dict[str, PoolSize]:
    """The sizes of pools; beside GPUs, decoding takes tasks of a whole CPU."""
    workers = {name: WorkersSpec("pool", **asked) for name, asked in pools.items()}
    return sizes(workers, nodes, on_gpu, 1.0 if on_gpu else TASK_CPUS, blocks)


def _fullest(found: dict[str, PoolSize], node: Node) -> float:
    """CPUs of the fullest way to put actors on a node, by trying all of them."""
    ranges = []
    for one in found.values():
        most = min(one.most, int(node.cpus / one.num_cpus + 1e-9))
        ranges.append(range((min(most, int(node.gpus / one.num_gpus + 1e-9)) if one.num_gpus else most) + 1))
    counts = itertools.product(*ranges)
    taken = (sum(n * one.num_cpus for n, one in zip(way, found.values(), strict=True)) for way in counts)
    return max(one for one in taken if one <= node.cpus + 1e-9)


@pytest.mark.parametrize(
    ("pools", "nodes", "expected"),
    [
        (
            {"a": {"max_workers": 2, "num_cpus": 2}, "b": {"max_workers": 2}},
            [Node(4)],
            r"a: 2 actors of 2 CPUs, b: 2 actors, on 4 CPUs; leave 0\.25 to the tasks",
        ),
        ({"a": {"max_workers": 4, "num_cpus": 1}}, [Node(4)], r"a: 4 actors of 1 CPUs, on 4 CPUs; leave 0\.25"),
        ({"a": {"num_gpus": 1}}, [Node(4)], r"compute\.pools\.a\.num_gpus: 1; no node has more than 0 GPUs"),
        ({"a": {"num_gpus": 2}}, [Node(4, 1), Node(4, 1)], r"num_gpus: 2; no node has more than 1 GPUs"),
        ({"a": {"num_cpus": 8, "max_workers": 1}}, [Node(4)] * 4, r"num_cpus: 8; no node for it has more than 4"),
        (
            {"a": {"num_cpus": 8, "max_workers": 1, "num_gpus": 1}},
            [Node(16), Node(4, 1)],
            r"num_cpus: 8; no node for it has more than 4",
        ),
    ],
)
def test_what_the_cluster_cannot_hold(pools: Any, nodes: list[Node], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        _sizes(pools, nodes, on_gpu=False)


@pytest.mark.parametrize("cpus", [1, 1.5])
def test_beside_a_gpu_a_small_node_has_no_room_for_decoding(cpus: float) -> None:
    with pytest.raises(ConfigError, match=rf"nodes of {cpus:g} CPU; tasks take 1 CPU, next to actors on GPUs: larger"):
        _sizes({"a": {}}, [Node(cpus, 1)] * 4, on_gpu=True)


def test_pools_share_the_gpus() -> None:
    def shown(pools: Any, nodes: list[Node]) -> list[tuple[int, float]]:
        return [(one.most, one.num_gpus) for one in _sizes(pools, nodes, on_gpu=True).values()]

    one, two, eight = [Node(8, 1)], [Node(4, 1), Node(4, 1)], [Node(64, 8)]
    assert shown({"a": {}, "b": {}}, one) == [(1, 0.5), (1, 0.5)]
    assert shown({"a": {}, "b": {}, "c": {}}, two) == [(2, 0.5), (1, 0.5), (1, 0.5)]
    assert shown({"a": {}, "b": {}, "c": {}}, eight) == [(3, 1.0), (3, 1.0), (2, 1.0)]
    assert shown({"a": {"num_gpus": 2}, "b": {}}, eight) == [(3, 2.0), (2, 1.0)]
    assert shown({"a": {"max_workers": 6}, "b": {}}, eight) == [(6, 1.0), (2, 1.0)]
    assert shown({"a": {"max_workers": 2}, "b": {}}, [Node(8, 2)]) == [(2, 0.5), (2, 0.5)]
    assert shown({"b": {}, "a": {"num_gpus": 2}}, [Node(8, 2), Node(8, 2)]) == [(1, 1.0), (1, 2.0)]
    # two of a half on two devices would leave none whole
    assert shown({"a": {"num_gpus": 0.5}, "b": {}}, two) == [(1, 0.5), (1, 1.0)]
    assert shown({"a": {"num_gpus": 0.6}}, [Node(16, 4)]) == [(4, 0.6)]


@pytest.mark.parametrize(
    ("pools", "nodes"),
    [
        ({"a": {}, "b": {"num_gpus": 1}, "c": {"num_gpus": 1}}, [Node(8, 2)]),
        ({f"p{i}": {} for i in range(9)}, [Node(8, 1)]),
        ({"a": {"num_gpus": 2}, "b": {"num_gpus": 1}}, [Node(4, 2), Node(4)]),
        # the two that share may stand on different nodes, or two of one pool; then no GPU is whole
        ({"a": {}, "b": {}, "c": {"num_gpus": 1}}, [Node(4, 1), Node(4, 1)]),
        ({"a": {"num_gpus": 1, "max_workers": 2}, "b": {"num_gpus": 1}}, [Node(8, 2)]),
        ({"a": {"num_cpus": 3, "max_workers": 2}, "b": {"num_cpus": 3, "max_workers": 1}}, [Node(4), Node(4), Node(2)]),
        ({name: {"num_cpus": 3, "max_workers": 1} for name in "ab"}, [Node(5), Node(2)]),
    ],
)
def test_pools_of_which_not_one_actor_each_finds_room(pools: Any, nodes: list[Node]) -> None:
    with pytest.raises(ConfigError, match="not each pool is sure to find room for an actor; a smaller num_gpus"):
        _sizes(pools, nodes, on_gpu=any(node.gpus for node in nodes))


def test_a_pool_for_which_no_node_is_left() -> None:
    pools = {"a": PoolSize(1, 1, 0.5, 0.0), "b": PoolSize(1, 1, 0.5, 1.0)}
    assert without_room(pools, [Node(2), Node(2, 1)], 1.0) is None
    assert without_room(pools, [Node(2), Node(2)], 1.0) == "b"
    assert without_room(pools, [Node(1, 1)], TASK_CPUS) is None
    assert without_room(pools, [Node(1, 1)], 1.0) == "a", "no CPU is left for decoding"
    assert without_room(pools, [], TASK_CPUS) == "a"
    both = {"a": PoolSize(1, 1, 0.5, 1.0), "b": PoolSize(1, 1, 0.4, 1.0)}
    assert without_room(both, [Node(8, 2)], 1.0) is None
    assert without_room(both, [Node(8, 1)], 1.0) == "a", "one GPU for two"


def test_one_actor_per_gpu_or_core() -> None:
    nodes = [Node(2, 1), Node(2, 1)]
    assert _sizes({"a": {"num_gpus": 0.5}}, nodes, on_gpu=True, blocks=3)["a"].least == 3
    assert [(one.least, one.most) for one in _sizes({"a": {}}, nodes, blocks=2).values()] == [(2, 4)]
    assert _sizes({"a": {"num_gpus": 0.6}}, nodes, on_gpu=True)["a"].most == 2, "a GPU holds one of 0.6, not 1.67"
    assert _sizes({"a": {"max_workers": 3, "min_workers": 1}}, nodes)["a"] == PoolSize(1, 3, 0.97, 0.0)


@pytest.mark.parametrize("cpus", [[1], [2], [2, 2], [1, 1, 1], [16] * 4, [16, 32, 64], [3, 7, 19, 33], [96] * 10])
@pytest.mark.parametrize("pools", [1, 2, 5])
def test_no_node_can_be_filled_by_actors(cpus: list[int], pools: int) -> None:
    """Also not by those of a node that was lost."""
    found = _sizes({f"p{i}": {} for i in range(pools)}, [Node(one) for one in cpus])
    (share,) = {one.num_cpus for one in found.values()}
    total = sum(one.most for one in found.values())
    assert total == pools * sum(cpus)
    for has in cpus:
        actors = min(total, int(has / share + 1e-9))
        assert has - actors * share >= TASK_CPUS - 1e-9, f"{actors} actors of {share} CPUs on a node of {has}"
    assert share * pools > 0.7, "most of the CPUs are the actors'"


@pytest.mark.parametrize(
    "pools",
    [
        {"a": {"num_cpus": 0.5, "max_workers": 1}, "b": {}},
        {"a": {"num_cpus": 0.3, "max_workers": 2}, "b": {}, "c": {"max_workers": 1}},
    ],
)
@pytest.mark.parametrize("nodes", [[Node(2), Node(2)], [Node(4), Node(2), Node(3)]])
def test_nor_where_some_shares_are_given(pools: Any, nodes: list[Node]) -> None:
    found = _sizes(pools, nodes)
    for node in nodes:
        assert node.cpus - _fullest(found, node) >= TASK_CPUS - 1e-9


@pytest.mark.parametrize(
    ("pools", "nodes"),
    [
        ({"a": {}}, [Node(16, 4)]),
        ({"a": {}, "b": {"num_gpus": 0.5}}, [Node(4, 2), Node(4, 2)]),
        ({"cpu": {"num_gpus": 0, "max_workers": 4}, "gpu": {}}, [Node(1), Node(16, 1)]),
        ({"cpu": {"num_gpus": 0, "max_workers": 4}, "gpu": {}}, [Node(2), Node(16, 1)]),
        ({"cpu": {"num_gpus": 0}, "gpu": {}}, [Node(2), Node(16, 1)]),
        ({"a": {}}, [Node(2, 1)]),
    ],
)
def test_beside_a_gpu_the_largest_nodes_keep_a_whole_cpu(pools: Any, nodes: list[Node]) -> None:
    found = _sizes(pools, nodes, on_gpu=True)
    largest = max(node.cpus for node in nodes)
    for node in nodes:
        assert node.cpus - _fullest(found, node) >= (1 if node.cpus == largest else TASK_CPUS) - 1e-9
    assert all(one.num_cpus >= 0.5 for one in found.values()), found
