"""Configs: bytes, structure and YAML's own devices; values of `--set`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from pipeline import config
from tests.fuzz import mutation
from tests.fuzz.cases import Case
from tests.support import ROOT

_TOKENS = (
    "<<: *a\n",
    "&a ",
    "*a",
    "!!python/object/apply:os.system [id]",
    "!!binary |\n aGk=\n",
    "? [x]\n: y\n",
    "---\n",
)
_TOKENS += (
    "!!set {a}",
    "!!timestamp 2026-99-99",
    "0x" + "f" * 6000,
    "1_0:59:59",
    "{{{{",
    "[[[[",
    "\t",
    "\ufeff",
    "%YAML 9.9\n",
)
_TOKENS += (
    "- - - - - ",
    "|+9\n",
    "'",
    '"',
    "\\x00",
    "!<tag:yaml.org,2002:int> x",
    "=: 1\n",
    "~",
    ".inf",
    "-.nan",
    "0o777",
)
_KEYS = ("source.path", "output.path", "features", "compute.pools", "window.length_s", "decoders.video", "a..b", "")


class Configs:
    seconds, memory_mb, starts = 5.0, 256, False

    def __init__(self, work: Path) -> None:
        self.texts = [path.read_text() for path in sorted((ROOT / "configs").glob("*.yaml"))]
        self.trees = [yaml.safe_load(text) for text in self.texts]
        self.trees.append(_everything(self.trees[0]))

    def prepare(self, box: Path) -> None:
        """Nothing is there before."""

    def case(self, rng: random.Random) -> Case:
        kind = rng.randrange(12)
        if kind == 0:
            text = mutation.changed(rng, rng.choice(self.texts).encode())
        elif kind == 1:
            text = self._with_tokens(rng).encode("utf-8", "surrogatepass")
        elif kind == 2:
            text = _bomb(rng).encode()
        elif kind < 8:
            text = _dumped(mutation.similar(rng, rng.choice(self.trees), self.trees))
        else:
            tree = mutation.structure(rng, rng.choice(self.trees))
            text = _dumped(tree)
        sets = [f"{rng.choice(_KEYS)}={_line(mutation.value(rng))}" for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        return Case({"c.yaml": text}, steps=sets)

    def strategy(self) -> Any:
        """Any tree at any place of a config."""
        leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.dates()
        trees = st.recursive(
            leaves, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(), one, max_size=3)
        )
        places = [place for tree in self.trees for place in _paths(tree)]

        def made(place: list[Any], tree: Any, number: int) -> Case:
            whole = yaml.safe_load(yaml.safe_dump(self.trees[number % len(self.trees)]))
            one = whole
            for key in place[:-1]:
                if not isinstance(one, dict) or key not in one:
                    break
                one = one[key]
            if isinstance(one, dict):
                one[place[-1]] = tree
            return Case({"c.yaml": _dumped(whole)})

        return st.builds(made, st.sampled_from(places), trees, st.integers(0, 5))

    def run(self, box: Path, case: Case) -> Any:
        return config.load(str(box / "c.yaml"), case.steps)

    def _with_tokens(self, rng: random.Random) -> str:
        lines = rng.choice(self.texts).splitlines(keepends=True)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(lines))
            line, token = lines[at], rng.choice(_TOKENS)
            cut = rng.choice((0, len(line) - 1, len(line) - len(line.lstrip()), line.find(": ") + 2))
            lines[at] = line[:cut] + token + line[cut:]
        return "".join(lines)


def _everything(tree: Any) -> Any:
    """A config that names what the ready ones leave out."""
    source = {"kind": "manifest", "path": "m.csv", "columns": {"image": "i", "id": "k"}, "passthrough": ["a"]}
    decoders = {
        "video": {"kind": "pyav", "max_pixels": 100},
        "text": {"encoding": "cp1252", "max_bytes": 10},
        "limits": {"row_seconds": 3.0, "memory_bytes": 1 << 30, "isolate": True},
    }
    pools = {"default": {"max_actors": 1, "num_cpus": 0.5}}
    return {**tree, "source": source, "decoders": decoders, "compute": {"num_cpus": 2, "pools": pools}}


def _paths(tree: Any, before: tuple[Any, ...] = ()) -> list[list[Any]]:
    found = []
    for key, item in tree.items() if isinstance(tree, dict) else ():
        found += [[*before, key], *_paths(item, (*before, key))]
    return found


def _dumped(tree: Any) -> bytes:
    try:
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, RecursionError):
        return b"[" * 20_000


def _line(value: Any) -> str:
    try:
        return str(yaml.safe_dump(value, default_flow_style=True, width=10**9)).strip()
    except (yaml.YAMLError, RecursionError):
        return "[" * 500


def _bomb(rng: random.Random) -> str:
    """Aliases, merges and nesting that unfold to far more than their text."""
    wide, deep = rng.choice((2, 3, 9)), rng.choice((3, 9, 25, 60))
    kind = rng.randrange(4)
    if kind == 0:
        lines = ["l0: &l0 [x]"] + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * wide)}]" for i in range(1, deep)]
    elif kind == 1:
        lines = ["l0: &l0 {a: 1}"]
        lines += [f"l{i}: &l{i} {{<<: [{', '.join([f'*l{i - 1}'] * wide)}], k{i}: 1}}" for i in range(1, deep)]
    elif kind == 2:
        size = rng.choice((50, 1000, 20_000))
        lines = ["a: " + rng.choice(("[" * size, "{a: " * size, "- " * size))]
    else:
        lines = ["a: &a {b: *a}", "source: *a", "features: {<<: *a, x: *a}"]
    return "\n".join(lines) + "\nsource: {kind: files, path: x}\n"
