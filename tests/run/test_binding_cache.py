"""What binding found is used again only if config, files and versions are as they were."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import config as configs
from pipeline.config import features as binding
from pipeline.run import _binding_cache as cache
from tests.stages.media_fixtures import config
from tests.support import ROOT

LATER_S = 10.0
"""So much later than the files were written that their times are settled."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tessera" / "bindings"


@pytest.fixture
def settings(tmp_path: Path, models: Path) -> Any:
    """A config whose checkpoint is a copy that a test may change."""
    shutil.copytree(models / "clip", tmp_path / "clip")
    clip = {"kind": "clip", "checkpoint": str(tmp_path / "clip")}
    return configs.here(config(tmp_path, {"i": {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": clip}}))


def _recorded(settings: Any) -> Any:
    features = binding.bind(settings)
    cache.store(settings, features, time.time() + LATER_S)
    return features


def test_it_gives_what_binding_gave(home: Path, settings: Any) -> None:
    assert cache.load(settings) is None
    features = _recorded(settings)
    assert cache.load(settings) == features
    assert os.stat(home).st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in home.iterdir()] == [0o600]


def _touch(folder: Path) -> None:
    os.utime(folder / "config.json")


def _replace(folder: Path) -> None:
    """By a file of the same size and mtime."""
    path = folder / "model.safetensors"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _rewrite(folder: Path) -> None:
    """In place, with its old mtime."""
    path = folder / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _add(folder: Path) -> None:
    (folder / "preprocessor_config.json.bak").write_text("{}")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize("change", [_touch, _replace, _rewrite, _add, _remove])
def test_a_checkpoint_that_changed_is_noticed(
    home: Path, settings: Any, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    _recorded(settings)
    change(tmp_path / "clip")
    assert cache.load(settings) is None


def test_other_versions_and_other_configs_have_other_records(
    home: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    features = _recorded(settings)
    window = settings.window.model_copy(update={"length_s": 2.0})
    assert cache.load(settings.model_copy(update={"window": window})) is None
    elsewhere = settings.output.model_copy(update={"path": str(tmp_path / "elsewhere")})
    assert cache.load(settings.model_copy(update={"output": elsewhere})) == features
    with monkeypatch.context() as patch:
        patch.setattr(cache, "installed", lambda: {"transformers": "99"})
        assert cache.load(settings) is None
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_own_code", lambda: ["changed"])
        assert cache.load(settings) is None
    assert cache.load(settings) == features


def test_files_that_changed_just_now_are_not_recorded(home: Path, settings: Any, tmp_path: Path) -> None:
    """A later change may have the same times."""
    features = binding.bind(settings)
    _touch(tmp_path / "clip")
    cache.store(settings, features, time.time())
    assert not list(home.iterdir())


def test_a_folder_that_others_can_write_is_not_read(home: Path, settings: Any) -> None:
    _recorded(settings)
    home.chmod(0o777)
    assert cache.load(settings) is None


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["HOSTILE"],)


def test_a_link_is_not_followed(home: Path, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE", str(tmp_path / "run"))
    _recorded(settings)
    (record,) = home.iterdir()
    (tmp_path / "elsewhere").write_bytes(pickle.dumps(Hostile()))
    record.unlink()
    record.symlink_to(tmp_path / "elsewhere")
    assert cache.load(settings) is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", [b"", b"broken", pickle.dumps(([], ["no features"])), pickle.dumps(1)])
def test_a_broken_record_is_no_record(home: Path, settings: Any, data: bytes) -> None:
    _recorded(settings)
    (record,) = home.iterdir()
    record.write_bytes(data)
    assert cache.load(settings) is None


def test_old_records_are_removed(home: Path, settings: Any) -> None:
    home.mkdir(parents=True, mode=0o700)
    for i in range(150):
        (home / f"old{i}").touch()
        os.utime(home / f"old{i}", (i, i))
    _recorded(settings)
    assert len(list(home.iterdir())) == 100
    assert not (home / "old0").exists()


def test_a_night_with_nothing_to_do_imports_no_large_library(tmp_path: Path, models: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a red circle")
    text = {"modality": "text", "tokenizer": {"kind": "text"}}
    text["encoder"] = {"kind": "clip", "checkpoint": str(models / "clip")}
    settings = config(tmp_path / "in", {"t": text})
    (tmp_path / "c.yaml").write_text(settings.model_dump_json())
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("RAY_ADDRESS", None)
    script = (
        "import sys; from jobs import cli; sys.argv = ['tessera', 'extract', sys.argv[1], *sys.argv[2:]]\n"
        "try: cli.main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "print('LARGE', [name for name in ('torch', 'transformers', 'ray', 'av') if name in sys.modules])\n"
    )

    def large(*arguments: str) -> str:
        command = [sys.executable, "-c", script, str(tmp_path / "c.yaml"), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    large("--engine", "local")
    assert large("--engine", "local") == "LARGE []"
    assert large("--engine", "local", "--plan") == "LARGE []"
