"""A corpus that names files elsewhere: each costs its row, says so, and is tried once more when more is allowed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from PIL import Image

from pipeline import config as configs
from pipeline import dataset, run
from pipeline.core.errors import ConfigError
from tests.support import local_runs

PICTURE = {
    "modality": "image",
    "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8},
    "encoder": {"kind": "raw"},
    "emit": ["tokens"],
}
TEXT = {
    "modality": "text",
    "tokenizer": {"kind": "text", "checkpoint": "CHECKPOINT"},
    "encoder": {"kind": "raw"},
    "emit": ["token_ids"],
}


def night(folder: Path, features: dict[str, Any], new_version: bool = False, **source: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "source": {"kind": "manifest", "path": str(folder / "in" / "m.jsonl"), **source},
        "output": {"path": str(folder / "out")},
        "features": features,
        "failures": {"max_fraction": 1.0},
        "decoders": {"limits": {"isolate": False}},
    }
    return run.extract(local_runs.prepare(configs.parse(raw), new_version), show_progress=False)


def kinds(folder: Path) -> dict[str, str]:
    """sample -> kind of its failure."""
    failures = dataset.open(str(folder / "out")).failures()
    return dict(zip(failures["sample_id"].to_pylist(), failures["kind"].to_pylist(), strict=True))


def shown(folder: Path) -> dict[str, int]:
    """sample -> colour."""
    table = dataset.open(str(folder / "out")).to_arrow(["sample_id", "p_tokens"])
    return {row["sample_id"]: round(row["p_tokens"][0][0] * 255) for row in table.to_pylist()}


def manifest(folder: Path, rows: dict[str, str], column: str = "image") -> None:
    (folder / "in").mkdir(exist_ok=True)
    lines = (json.dumps({"id": name, column: uri}) for name, uri in rows.items())
    (folder / "in" / "m.jsonl").write_text("\n".join(lines))


def draw(path: Path, colour: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (20, 20), (colour, 0, 0)).save(path)


def test_no_word_of_what_lies_elsewhere_reaches_the_dataset(
    ray_session: Any, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIK7MDENG")
    secret = tmp_path / "secret.txt"
    secret.write_text("the word is mellon")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ok.txt").write_text("all is well")
    (tmp_path / "in" / "link.txt").symlink_to(secret)
    (tmp_path / "in" / "environ.txt").symlink_to("/proc/self/environ")
    rows = {
        "ok": "ok.txt",
        "link": "link.txt",
        "environ": "/proc/self/environ",
        "linked environ": "environ.txt",
        "url": f"file://{secret}",
        "absolute": str(secret),
        "up": "../secret.txt",
    }
    manifest(tmp_path, rows, "text")
    words = json.loads(json.dumps(TEXT).replace("CHECKPOINT", str(models / "bert")))
    columns = {"id": "id", "text": "text"}
    report = night(tmp_path, {"w": words}, columns=columns)
    data = dataset.open(str(tmp_path / "out"))
    assert data.to_arrow(["sample_id"])["sample_id"].to_pylist() == ["ok"]
    assert kinds(tmp_path) == dict.fromkeys(rows.keys() - {"ok"}, "forbidden")
    assert report["failures_by_kind"] == {"forbidden": 6}
    assert report["samples_by_class"]["forbidden"] == 4  # by their text; the others' links are found in the worker
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            assert b"mellon" not in file.read_bytes()
            assert b"wJalrXUtnFEMIK7MDENG" not in file.read_bytes()
    # the same again changes nothing
    assert night(tmp_path, {"w": words}, columns=columns)["samples"] == 0
    # the kernel's folders are forbidden whatever is allowed
    report = night(tmp_path, {"w": words}, columns=columns, roots=["/"])
    assert kinds(tmp_path) == dict.fromkeys(("environ", "linked environ"), "forbidden")
    assert report["samples_by_class"]["retried"] == 5  # all but the one that is refused by its text still


def test_forbidden_rows_are_tried_again_when_more_is_allowed(ray_session: Any, tmp_path: Path) -> None:
    for number, place in enumerate(("in/a.png", "more/b.png", "other/c.png")):
        draw(tmp_path / place, 10 + number)
    (tmp_path / "in" / "d.png").symlink_to(tmp_path / "more" / "b.png")
    rows = {"a": "a.png", "b": str(tmp_path / "more" / "b.png"), "c": str(tmp_path / "other/c.png"), "d": "d.png"}
    manifest(tmp_path, rows)
    options: dict[str, Any] = {"columns": {"id": "id", "image": "image"}, "version": "stat"}
    for _ in range(2):
        night(tmp_path, {"p": PICTURE}, **options)
        assert shown(tmp_path) == {"a": 10}
        assert kinds(tmp_path) == dict.fromkeys("bcd", "forbidden")
    more = {**options, "roots": [str(tmp_path / "more")]}
    report = night(tmp_path, {"p": PICTURE}, **more)
    assert shown(tmp_path) == {"a": 10, "b": 11, "d": 11}
    assert kinds(tmp_path) == {"c": "forbidden"}
    assert report["samples"] == 2
    assert night(tmp_path, {"p": PICTURE}, **more)["samples"] == 0


def test_what_is_stored_stays_when_less_is_allowed(ray_session: Any, tmp_path: Path) -> None:
    """As after an update to the version that has roots, for a dataset of a manifest that names files anywhere."""
    for number, place in enumerate(("in/a.png", "more/b.png", "more/c.png")):
        draw(tmp_path / place, 10 + number)
    rows = {"a": "a.png", "b": str(tmp_path / "more/b.png"), "c": str(tmp_path / "more/c.png")}
    manifest(tmp_path, rows)
    options: dict[str, Any] = {"columns": {"id": "id", "image": "image"}, "version": "stat"}
    night(tmp_path, {"p": PICTURE}, roots=[str(tmp_path / "more")], **options)
    everything = {"a": 10, "b": 11, "c": 12}
    assert shown(tmp_path) == everything
    draw(tmp_path / "more" / "b.png", 99)  # changed, and not to be looked at
    os.utime(tmp_path / "more" / "b.png", (1, 1))
    report = night(tmp_path, {"p": PICTURE}, **options)
    assert (report["samples"], report["samples_by_class"]["forbidden"]) == (0, 2)
    assert (shown(tmp_path), kinds(tmp_path)) == (everything, {})
    manifest(tmp_path, {name: rows[name] for name in ("b", "c")})
    with pytest.raises(ConfigError, match=r"source\.roots: all 2 rows .*more"):
        night(tmp_path, {"p": PICTURE}, **options)
    assert shown(tmp_path) == everything
    manifest(tmp_path, {"a": rows["a"], "b": rows["b"]})  # what is not listed any more is deleted as ever
    night(tmp_path, {"p": PICTURE}, **options)
    assert shown(tmp_path) == {"a": 10, "b": 11}
    night(tmp_path, {"p": PICTURE}, roots=[str(tmp_path / "more")], **options)
    assert shown(tmp_path) == {"a": 10, "b": 99}


def test_what_is_stored_stays_when_a_file_becomes_a_link_out(ray_session: Any, tmp_path: Path) -> None:
    """By its text it lies in the root: the listing alone would call it changed."""
    draw(tmp_path / "more" / "x.png", 99)
    for number, name in enumerate(("a", "b")):
        draw(tmp_path / "in" / f"{name}.png", 10 + number)
    manifest(tmp_path, {"a": "a.png", "b": "b.png"})
    options: dict[str, Any] = {"columns": {"id": "id", "image": "image"}, "version": "stat"}
    night(tmp_path, {"p": PICTURE}, **options)
    (tmp_path / "in" / "b.png").unlink()
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "more" / "x.png")
    draw(tmp_path / "in" / "a.png", 30)
    os.utime(tmp_path / "in" / "a.png", (1, 1))
    report = night(tmp_path, {"p": PICTURE}, **options)
    assert (report["samples"], report["samples_by_class"]["forbidden"]) == (1, 1)
    assert (shown(tmp_path), kinds(tmp_path)) == ({"a": 30, "b": 11}, {})
    night(tmp_path, {"p": PICTURE}, roots=[str(tmp_path / "more")], **options)
    assert shown(tmp_path) == {"a": 30, "b": 99}


def test_a_new_version_takes_no_column_of_a_file_that_it_may_not_read(ray_session: Any, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 10)
    draw(tmp_path / "more" / "b.png", 11)
    manifest(tmp_path, {"a": "a.png", "b": str(tmp_path / "more/b.png")})
    options: dict[str, Any] = {"columns": {"id": "id", "image": "image"}}
    night(tmp_path, {"p": PICTURE}, roots=[str(tmp_path / "more")], **options)
    night(tmp_path, {"p": PICTURE}, new_version=True, **options)
    assert (shown(tmp_path), kinds(tmp_path)) == ({"a": 10}, {"b": "forbidden"})


def test_links_of_a_folder(ray_session: Any, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 10)
    draw(tmp_path / "more" / "b.png", 11)
    draw(tmp_path / "more" / "c.png", 12)
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "more" / "b.png")
    (tmp_path / "in" / "deep").symlink_to(tmp_path / "more")
    options = {"kind": "files", "path": str(tmp_path / "in")}
    night(tmp_path, {"p": PICTURE}, **options)
    assert (shown(tmp_path), kinds(tmp_path)) == ({"a.png": 10}, {"b.png": "forbidden", "deep": "forbidden"})
    night(tmp_path, {"p": PICTURE}, follow_symlinks=True, **options)
    everything = {"a.png": 10, "b.png": 11, "deep/b.png": 11, "deep/c.png": 12}
    assert (shown(tmp_path), kinds(tmp_path)) == (everything, {})
    night(tmp_path, {"p": PICTURE}, **options)  # what is stored stays, also of a folder that is not entered any more
    assert shown(tmp_path) == everything
    (tmp_path / "in" / "deep").unlink()
    report = night(tmp_path, {"p": PICTURE}, **options)
    assert shown(tmp_path) == {"a.png": 10, "b.png": 11}
    assert pc.sum(dataset.open(str(tmp_path / "out")).failures()["attempts"]).as_py() is None
    assert report["samples_by_class"]["forbidden"] == 1
