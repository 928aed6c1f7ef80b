"""Globs: what they match, as in a shell, and how long that may take."""

from __future__ import annotations

import fnmatch
import random
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.core.errors import ConfigError, NotAllowed
from pipeline.sources._files.patterns import MAGIC, Patterns, expand
from pipeline.sources.files import Config
from tests.sources.listing import listed, make


def test_globs(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "images/deep/b.png", "videos/c.mp4", "audio/d.wav", "top.txt")
    assert set(listed(f"{tmp_path}/{{images,videos}}/**")) == {"images/a.jpg", "images/deep/b.png", "videos/c.mp4"}
    assert set(listed(f"{tmp_path}/{{images,videos}}")) == {"images/a.jpg", "images/deep/b.png", "videos/c.mp4"}
    assert set(listed(f"{tmp_path}/images/*")) == {"a.jpg"}
    assert set(listed(f"{tmp_path}/**/*.{{png,w?v}}")) == {"images/deep/b.png", "audio/d.wav"}
    assert set(listed(f"{tmp_path}/top.txt")) == {"top.txt"}
    make(tmp_path, "odd[1]{a,b}/x.txt", "odd[1]{a,b}/y*.txt")
    assert set(listed(f"{tmp_path}/odd[1]{{a,b}}")) == {"x.txt", "y*.txt"}
    assert set(listed(f"{tmp_path}/odd[1]{{a,b}}/y*.txt")) == {"y*.txt"}


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**/x", ["x", "a/x", "a/b/x"], ["ax", "xy"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
        ("a/**/z.*", ["a/z.t", "a/b/c/z.t"], ["z.t", "a/bz.t"]),
        ("*.jpg", ["a.jpg", ".jpg", "new\nline.jpg"], ["a/b.jpg", "a.jpgx"]),
        ("[ab]?.t", ["a1.t", "bb.t"], ["c1.t", "a.t", "a/.t"]),
        ("[!ab].t", ["c.t"], ["a.t", "/.t"]),
        ("[]x].t", ["].t", "x.t"], ["y.t"]),
        ("[^a].t", ["^.t", "a.t"], ["b.t"]),
        ("{a,b{1,2}}.t", ["a.t", "b1.t", "b2.t"], ["b.t", "{a.t"]),
        ("{a}.t", ["{a}.t"], ["a.t"]),
        ("a+(b).t", ["a+(b).t"], ["aab.t"]),
    ],
)
def test_what_a_glob_matches(glob: str, yes: list[str], no: list[str]) -> None:
    patterns = Patterns([glob])
    assert [path for path in yes if not patterns.match(path)] == []
    assert [path for path in no if patterns.match(path)] == []
    for path in yes:
        folders = path.split("/")[:-1]
        assert all(patterns.may_reach("/".join(folders[: i + 1])) for i in range(len(folders)))


def test_names_match_as_in_a_shell() -> None:
    """Compared with the standard library, over short names of few letters."""
    chance = random.Random(4)
    for _ in range(3000):
        glob = "".join(
            chance.choice(["*", "*", "?", "a", "b", "[ab]", "[!a]", "ab"]) for _ in range(chance.randrange(7))
        )
        name = "".join(chance.choice("abc") for _ in range(chance.randrange(1, 8)))
        if glob and glob != "**" and MAGIC.search(glob):
            assert Patterns([glob]).match(name) == fnmatch.fnmatchcase(name, glob), (glob, name)


def test_a_glob_takes_no_time_without_end() -> None:
    started = time.process_time()
    assert not Patterns(["*a" * 40 + "*b"]).match("a" * 250)
    with pytest.raises(NotAllowed, match="at most 1000 alternatives"):
        Patterns(["{a,b}" * 30])
    with pytest.raises(NotAllowed, match=r"many \*\*"):
        Patterns(["**/a/" * 9])
    assert time.process_time() - started < 2.0


def test_braces_expand_as_in_a_shell() -> None:
    assert expand("{a,b}/{c,d{e,f}}") == [
        "a/c",
        "a/de",
        "a/df",
        "b/c",
        "b/de",
        "b/df",
    ]
    assert expand("{x}{a,b}{") == ["{x}a{", "{x}b{"]


def test_a_glob_that_cannot_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    with pytest.raises(ValidationError, match="cannot be read"):
        Config(path="x", exclude=("[z-a]",))
    with pytest.raises(ConfigError, match=r"source\.path: .*cannot be read"):
        listed(f"{tmp_path}/[z-a]*")
