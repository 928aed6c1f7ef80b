"""Bytes and JSON, changed at random."""

from __future__ import annotations

import copy
import random
import struct
from typing import Any

OUTSIDE = "@OUTSIDE@"
"""Stands for the absolute path of a folder that no input may touch (`cases.Case.write`)."""
NUMBERS = (
    0,
    -1,
    1,
    2,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    -(2**31),
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    10**30,
)
STRINGS = (
    "",
    " ",
    ".",
    "..",
    "/",
    "\0",
    "\x1b[31mred\x1b[0m",
    "a\nb\r\nc",
    "\u202e\u2066x",
    "\ud83d",
    "é" * 300,
    "x" * 5000,
    "../../outside/key.parquet",
    "data/../../../outside/key.parquet",
    f"{OUTSIDE}/key.parquet",
    f"file://{OUTSIDE}/secret.txt",
    f"{OUTSIDE}/secret.txt",
    "/proc/self/environ",
    "/dev/zero",
    "http://127.0.0.1:9/x",
    "s3://user:password@bucket/x",
    "simplecache::http://127.0.0.1:9/x",
    "memory://x",
    "[red]x[/red]",
    "%s%n{0}{x.__class__}",
    "NaN",
    "1e999",
    "9999-12-31T23:59:59+14:00",
    "2026-13-45",
)


def value(rng: random.Random, depth: int = 0) -> Any:
    """A value of JSON that few readers expect."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice((0.5, -0.0, 1e308, 1e-320, float("inf"), float("-inf"), float("nan"), 1e10))
    if kind in (3, 4, 5):
        return rng.choice(STRINGS)
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.choice(STRINGS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    nested: Any = rng.choice((1, "x", None))
    for _ in range(rng.choice((3, 50, 900, 3000))):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return nested


def structure(rng: random.Random, tree: Any) -> Any:
    """``tree`` of dicts and lists with a few nodes replaced, removed, renamed, doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        places = list(_places(tree))
        if not places:
            return value(rng)
        parent, key = rng.choice(places)
        action = rng.randrange(6)
        if action == 0:
            del parent[key]
        elif action == 1 and isinstance(parent, dict):
            parent[rng.choice(STRINGS) if rng.random() < 0.5 else str(key) + "x"] = parent.pop(key)
        elif action == 2:
            _, other = rng.choice(places), rng.choice(places)
            parent[key] = _copied(other[0][other[1]]) if _holds(other) else value(rng)
        elif action == 3 and isinstance(parent, list):
            parent.extend([_copied(parent[key])] * rng.choice((1, 2, 300)))
        else:
            parent[key] = value(rng)
    return tree


def _copied(tree: Any) -> Any:
    """None for what is nested too deep to be copied."""
    try:
        return copy.deepcopy(tree)
    except RecursionError:
        return None


def similar(rng: random.Random, tree: Any, others: list[Any]) -> Any:
    """``tree`` with a few leaves as a user might have written them: a number near by, the other truth, what stands
    under the same key in ``others``."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 4))):
        leaves = [(parent, key) for parent, key in _places(tree) if not isinstance(parent[key], dict | list)]
        if not leaves:
            break
        parent, key = rng.choice(leaves)
        old = parent[key]
        there = [up[name] for other in others for up, name in _places(other) if name == key and isinstance(up, dict)]
        if isinstance(old, bool):
            parent[key] = not old
        elif isinstance(old, int | float) and rng.random() < 0.8:
            parent[key] = rng.choice((old + 1, old * 2, old / 2, old // 3, 0, 1, -old))
        elif there:
            parent[key] = copy.deepcopy(rng.choice(there))
        elif isinstance(old, str):
            parent[key] = rng.choice((old.upper(), f" {old}", f"./{old}", old[:-1], f"{old} é", None))
    return tree


def _places(tree: Any) -> Any:
    todo = [tree]
    while todo:
        one = todo.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, item in list(items):
            yield one, key
            todo.append(item)


def _holds(place: tuple[Any, Any]) -> bool:
    parent, key = place
    return key in parent if isinstance(parent, dict) else key < len(parent)


def changed(rng: random.Random, data: bytes, head: float = 0.0) -> bytes:
    """``data`` with a few bytes changed; ``head``: the probability that a change is within its first 512."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8, 30))):
        end = min(len(out), 512) if rng.random() < head else len(out)
        at = rng.randrange(end + 1) if end else 0
        size = rng.choice((1, 1, 2, 4, 8, 16, 100))
        action = rng.randrange(8)
        if action == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif action == 1 and at < len(out):
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif action == 2:
            number, width = rng.choice(NUMBERS), rng.choice("HIQ")
            number &= (1 << (8 * struct.calcsize(width))) - 1
            packed = struct.pack(rng.choice("<>") + width, number)
            out[at : at + len(packed)] = packed
        elif action == 3:
            del out[at : at + size]
        elif action == 4:
            out[at:at] = rng.randbytes(size)
        elif action == 5:
            out[at:at] = out[at : at + size] * rng.choice((1, 2, 50))
        elif action == 6 and rng.random() < 0.2:
            del out[at:]
        else:
            out[at : at + size] = rng.randbytes(size)
    return bytes(out)
