"""A run's cores over time: the arithmetic by hand, the drawing as XML."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.benchmark import picture
from pipeline.benchmark.end_to_end import KINDS
from tests.benchmark.measured import whole

SVG = "{http://www.w3.org/2000/svg}"
Line = list[tuple[float, dict[str, float]]]


def test_cores_busy_by_hand() -> None:
    line: Line = [
        (0.0, {}),
        (0.5, {"driver": 0.5}),
        (1.0, {"driver": 1.0}),
        (2.0, {"driver": 1.0, "encode": 2.0}),
        (3.0, {"driver": 1.25, "encode": 3.0}),
    ]
    ends, gpu_utilization = picture.cores_busy(line)
    assert ends.tolist() == [1.0, 2.0, 3.0]
    assert {kind: values.tolist() for kind, values in gpu_utilization.items()} == {
        "driver": [1.0, 0.0, 0.25],
        "encode": [0.0, 2.0, 1.0],
    }


def test_between_two_looks_a_kind_is_as_busy_all_along() -> None:
    _, gpu_utilization = picture.cores_busy([(0.0, {}), (0.5, {"driver": 0.2}), (2.5, {"driver": 2.2})])
    np.testing.assert_allclose(gpu_utilization["driver"], [0.7, 1.0])


def test_what_a_worker_does_later_falls_into_the_step_that_saw_it() -> None:
    _, gpu_utilization = picture.cores_busy([(0.0, {}), (1.0, {"idle": 0.8}), (2.0, {"idle": 0.8, "encode": 1.0})])
    np.testing.assert_allclose(gpu_utilization["idle"], [0.8, 0.0])
    np.testing.assert_allclose(gpu_utilization["encode"], [0.0, 1.0])


def test_a_run_that_was_hardly_looked_at_is_one_step() -> None:
    ends, gpu_utilization = picture.cores_busy([(0.0, {})])
    assert (ends.tolist(), gpu_utilization) == ([1.0], {})
    assert _drawn([(0.0, {})]).findall(f"{SVG}polygon") == []


def test_kinds_stand_in_their_order() -> None:
    spent = dict.fromkeys(reversed(KINDS), 1.0)
    assert list(picture.cores_busy([(0.0, {}), (1.0, spent)])[1]) == list(KINDS)


def _drawn(line: Line, cores: float = 4.0, first_row_s: float = 1.5) -> ElementTree.Element:
    run: dict[str, Any] = {"timeline": line, "startup": {"first_row_s": [first_row_s / 2, first_row_s]}}
    return ElementTree.fromstring(picture.draw({"machine": {"cores": cores}, "run": run}))


def test_one_polygon_and_one_name_for_each_kind() -> None:
    root = ElementTree.fromstring(picture.draw(whole()))
    assert root.tag == f"{SVG}svg"
    polygons = root.findall(f"{SVG}polygon")
    assert len(polygons) == len({one.get("fill") for one in polygons}) == 2
    texts = [one.text for one in root.findall(f"{SVG}text")]
    assert {"driver", "decode", "first row", "cores busy, by what they do; 4 there"} <= set(texts)
    assert [one for one in texts if one and one.endswith(" s")] == ["0 s", "1 s", "2 s", "3 s"]


def test_every_kind_has_a_colour() -> None:
    root = _drawn([(0.0, {}), (1.0, dict.fromkeys(KINDS, 0.5))])
    assert len({one.get("fill") for one in root.findall(f"{SVG}polygon")}) == len(KINDS)


def test_heights_stack_up_to_the_cores_that_are_busy() -> None:
    """Of two kinds that keep one core busy each, the second stands on the first."""
    root = _drawn([(0.0, {}), (1.0, {"driver": 1.0, "encode": 1.0})], cores=2.0)
    below, above = ([y for _, y in _points(one)] for one in root.findall(f"{SVG}polygon"))
    assert min(below) == max(above)
    (rule,) = (one for one in root.findall(f"{SVG}line") if one.get("y1") == one.get("y2"))
    assert float(rule.get("y1", 0)) == min(above)  # where all cores would be busy


def test_each_step_is_flat_from_its_start_to_its_end() -> None:
    root = _drawn([(0.0, {}), (1.0, {"driver": 1.0}), (2.0, {"driver": 1.0})])
    points = _points(root.findall(f"{SVG}polygon")[0])
    (first, top), (second, also), (third, ground), (last, end) = points[:4]
    assert (second, also, end) == (third, top, ground)
    assert second - first == pytest.approx(last - second, abs=0.2)
    assert top < ground
    assert [x for x, _ in points[4:]] == [last, second, second, first]
    assert {y for _, y in points[4:]} == {ground}


def test_the_first_row_is_the_large_runs() -> None:
    root = ElementTree.fromstring(picture.draw(whole()))
    (rule,) = (one for one in root.findall(f"{SVG}line") if one.get("x1") == one.get("x2"))
    points = [x for one in root.findall(f"{SVG}polygon") for x, _ in _points(one)]
    assert float(rule.get("x1", 0)) == max(points)  # at 22 s, of 3 s that were looked at
    root = _drawn([(0.0, {}), (4.0, {"driver": 4.0})], first_row_s=2.0)
    (rule,) = (one for one in root.findall(f"{SVG}line") if one.get("x1") == one.get("x2"))
    assert float(rule.get("x1", 0)) == pytest.approx((min(points) + max(points)) / 2, abs=0.1)


@pytest.mark.parametrize(
    ("line", "cores", "first_row_s"),
    [
        ([(0.0, {}), (0.4, {"driver": 0.3})], 2.0, 0.2),
        ([(0.0, {}), (3.0, {"driver": 30.0})], 2.0, 99.0),  # more than there are; no row while it was looked at
        ([(float(i), {"driver": float(i), "encode": 2.0 * i}) for i in range(5000)], 16.0, 30.0),
    ],
)
def test_nothing_leaves_the_picture(line: Line, cores: float, first_row_s: float) -> None:
    root = _drawn(line, cores, first_row_s)
    _, _, width, height = map(float, root.get("viewBox", "").split())
    points = [point for one in root.findall(f"{SVG}polygon") for point in _points(one)]
    points += [
        (float(one.get(f"x{i}", -1)), float(one.get(f"y{i}", -1))) for one in root.iter(f"{SVG}line") for i in "12"
    ]
    points += [(float(one.get("x", -1)), float(one.get("y", -1))) for one in root.iter(f"{SVG}text")]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    assert len([one for one in root.iter(f"{SVG}text") if re.fullmatch(r"\d+ s", one.text or "")]) <= 11


def _points(polygon: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in polygon.get("points", "").split())
    return [(float(x), float(y)) for x, y in pairs]
