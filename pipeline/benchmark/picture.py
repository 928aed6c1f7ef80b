"""Draws the busy cores of a run over time, stacked by kind of process, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from pipeline.benchmark.end_to_end import KINDS

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 900, 320, 48, 40, 36, 190
_COLOURS = ("#4c4c4c", "#7a5c99", "#9a9a9a", "#e0b040", "#d9713c", "#3c78d9", "#3ca06a", "#cfcfcf", "#b58ad6")
_STEP_S = 1.0


def draw(result: dict[str, Any]) -> str:
    """Returns an SVG of the large run in a result of `benchmark.measure`: busy cores, second by second."""
    line = result["run"]["timeline"]
    return _svg(*cores_busy(line), float(result["machine"]["cores"]), result["run"]["startup"]["first_row_s"][1])


def cores_busy(line: Sequence[tuple[float, dict[str, float]]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the ends of equal steps, in seconds, and by kind the busy cores in each step.

    What a process used before it was first measured, or before its kind was known, counts in the step that measured it.
    """
    at = np.array([one for one, _ in line])
    ends = np.arange(_STEP_S, max(at[-1], _STEP_S) + 1e-9, _STEP_S)
    busy = {}
    for kind in KINDS:
        spent = np.array([by_kind.get(kind, 0.0) for _, by_kind in line])
        if spent.any():
            until = np.interp(ends, at, spent)
            busy[kind] = np.maximum(np.diff(until, prepend=0.0), 0.0) / _STEP_S
    return ends, busy


def _svg(ends: np.ndarray, busy: dict[str, np.ndarray], cores: float, first_row_s: float) -> str:
    highest = float(max(cores, np.max(sum(busy.values(), np.zeros(len(ends)))))) * 1.05
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(seconds: float) -> float:
        return float(round(_LEFT + width * seconds / ends[-1], 1))

    def y(value: float) -> float:
        return float(round(_TOP + height * (1 - value / highest), 1))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20">cores busy, by what they do; {cores:g} there</text>',
    ]
    below = np.zeros(len(ends))
    for number, (kind, values) in enumerate(busy.items()):
        colour = _COLOURS[KINDS.index(kind)]
        upper = below + values
        left = [0.0, *ends[:-1]]
        steps = list(zip(left, ends, upper, below, strict=True))
        outline = [(at, top) for a, b, top, _ in steps for at in (a, b)]
        outline += [(at, ground) for a, b, _, ground in reversed(steps) for at in (b, a)]
        points = " ".join(f"{x(seconds)},{y(value)}" for seconds, value in outline)
        parts.append(f'<polygon points="{points}" fill="{colour}"/>')
        row = _TOP + 18 * number
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 16}" y="{row}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 34}" y="{row + 10}">{escape(kind)}</text>')
        below = upper
    parts.append(_rule(x(0), y(cores), x(ends[-1]), y(cores)))
    parts.append(_rule(x(min(first_row_s, ends[-1])), _TOP, x(min(first_row_s, ends[-1])), _TOP + height))
    parts.append(f'<text x="{x(min(first_row_s, ends[-1])) + 3}" y="{_TOP + 12}">first row</text>')
    for seconds in _ticks(float(ends[-1])):
        parts.append(f'<text x="{x(seconds)}" y="{_HEIGHT - 12}" text-anchor="middle">{seconds:g} s</text>')
    for value in range(int(highest) + 1):
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{value}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="black" stroke-dasharray="4 3"/>'


def _ticks(seconds: float) -> list[float]:
    step = next(one for one in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if seconds / one <= 10)
    return [float(one) for one in np.arange(0, seconds + 1e-9, step)]
