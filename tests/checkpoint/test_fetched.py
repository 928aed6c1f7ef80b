"""Checkpoints and heads on an object store: fetched once, whole or not at all, and noticed when they change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
from PIL import Image

from pipeline import run
from pipeline.checkpoint import fetched
from pipeline.checkpoint.checkpoint import Checkpoint, of_tokenizer, on_this_machine, resolve
from pipeline.config import features as binding
from pipeline.core.errors import ConfigError
from pipeline.heads import linear
from pipeline.run import _binding_cache
from tests.stages.media_fixtures import config
from tests.support.faulty_proxy import FaultyProxy

URL, WHERE = "s3://corpus/models/clip", "features.i.encoder.checkpoint"
_PROGRAM = f"from pipeline.checkpoint.checkpoint import resolve; print(resolve({URL!r}, None, 'x').path)"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tessera" / "checkpoints"


@pytest.fixture
def clip(models: Path, s3: Any, cache: Path) -> Path:
    """The folder whose copy is at URL."""
    s3.put(str(models / "clip"), "corpus/models/clip", recursive=True)
    s3.pipe("corpus/models/clip/pytorch_model.bin", b"pickled")
    s3.pipe("corpus/models/clip/onnx/model.onnx", b"other")
    s3fs.S3FileSystem.clear_instance_cache()
    return models / "clip"


@pytest.fixture
def proxy(clip: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield made
        s3fs.S3FileSystem.clear_instance_cache()


def _picture(checkpoint: str) -> dict[str, Any]:
    encoder = {"kind": "clip", "checkpoint": checkpoint}
    return {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": encoder}


def _gets(proxy: FaultyProxy, name: str) -> int:
    return sum(method == "GET" and path.partition("?")[0].endswith(f"/{name}") for method, path, _ in proxy.requests)


def test_a_checkpoint_is_fetched_once(proxy: FaultyProxy, clip: Path, cache: Path) -> None:
    found, there = resolve(URL, None, WHERE), resolve(str(clip), None, WHERE)
    assert (found.name, found.revision) == (URL, None)
    assert Path(found.path).parent == cache
    assert sorted(os.listdir(found.path)) == sorted(os.listdir(clip))  # no pickles, no folders
    assert found.weights_sha256() == there.weights_sha256()
    assert found.preprocessing_sha256() == there.preprocessing_sha256()
    assert _gets(proxy, "model.safetensors") == 1
    assert resolve(f"{URL}/", None, WHERE).path == found.path
    assert _gets(proxy, "model.safetensors") == 1
    assert os.stat(cache).st_mode & 0o777 == 0o700


def test_processes_share_one_fetch(proxy: FaultyProxy, cache: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE) for _ in range(3)]
    paths = {process.communicate(timeout=60)[0] for process in started}
    assert len(paths) == 1
    assert [process.returncode for process in started] == [0, 0, 0]
    assert _gets(proxy, "model.safetensors") == 1


def test_a_kill_leaves_no_half_copy(proxy: FaultyProxy, cache: Path, clip: Path) -> None:
    proxy.hold("model.safetensors")
    killed = subprocess.Popen([sys.executable, "-c", _PROGRAM])
    deadline = time.monotonic() + 60
    while not proxy.held and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert proxy.held
    assert not [name for name in os.listdir(cache) if not name.startswith(".") and not name.endswith(".lock")]
    proxy.release()
    found = resolve(URL, None, WHERE)
    assert found.weights_sha256() == resolve(str(clip), None, WHERE).weights_sha256()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", ["short", "cut", "503", "reset"])
def test_a_storage_that_fails_for_a_moment(proxy: FaultyProxy, clip: Path, fault: str) -> None:
    proxy.plan("GET", fault, 3)
    found = resolve(URL, None, WHERE)
    assert found.weights_sha256() == resolve(str(clip), None, WHERE).weights_sha256()


def test_another_checkpoint_at_the_same_url(s3: Any, clip: Path, models: Path) -> None:
    first = resolve(URL, None, WHERE)
    weights_before = first.weights_sha256()
    assert on_this_machine(first) is first
    other = Checkpoint(f"/elsewhere/{Path(first.path).name}", URL, None, WHERE)  # the driver's, on another machine
    assert on_this_machine(other).path == first.path
    shutil.rmtree(first.path)
    weights = bytearray((clip / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    s3.pipe("corpus/models/clip/model.safetensors", bytes(weights))
    second = resolve(URL, None, WHERE)
    assert second.path != first.path
    assert second.weights_sha256() != weights_before
    with pytest.raises(ConfigError, match=r"'s3://corpus/models/clip' has changed since the driver read it"):
        on_this_machine(other)


def test_a_checkpoint_that_changes_while_it_is_fetched(
    proxy: FaultyProxy, s3: Any, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy holds the files of one moment, also if the storage goes back to what it was."""
    old = (clip / "model.safetensors").read_bytes()
    new = old[:-1] + bytes([old[-1] ^ 1])
    fetch, changes = fetched._fetch_file, [new]

    def changing(*arguments: Any) -> None:
        fetch(*arguments)
        if changes:  # after the first file: those that follow are of the new checkpoint
            s3.pipe("corpus/models/clip/model.safetensors", changes.pop())

    monkeypatch.setattr(fetched, "_fetch_file", changing)
    found = resolve(URL, None, WHERE)
    assert (Path(found.path) / "model.safetensors").read_bytes() == new
    s3.pipe("corpus/models/clip/model.safetensors", old)
    s3fs.S3FileSystem.clear_instance_cache()
    again = resolve(URL, None, WHERE)
    assert again.path != found.path
    assert (Path(again.path) / "model.safetensors").read_bytes() == old


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://corpus/models/none", "there is nothing at 's3://corpus/models/none'; give the URL of a folder"),
        ("s3://corpus/models/clip/config.json", "there is nothing at"),
        ("s3://nobucket/clip", "there is nothing at 's3://nobucket/clip'"),
        ("file:///etc", "cannot read 'file:///etc' (ValueError: the scheme 'file' is none of s3, "),
        ("github://a:b@main/clip", "cannot read"),
    ],
)
def test_what_is_no_checkpoint(clip: Path, url: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(url, None, WHERE)
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert words in str(caught.value)


def test_a_url_takes_no_revision(clip: Path) -> None:
    with pytest.raises(ConfigError, match="revision 'main' for the URL"):
        resolve(URL, "main", WHERE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_disk_without_room(clip: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", tmp_path / "cache"]).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(ConfigError, match=r"more files have \d+ bytes, .* has \d+ left; free some, or set XDG"):
            resolve(URL, None, WHERE)
        assert [name for name in os.listdir(cache) if not name.endswith(".lock")] == []
    finally:
        subprocess.run(["umount", tmp_path / "cache"], check=True)


@pytest.mark.slow
def test_a_run_with_all_models_on_s3(clip: Path, models: Path, s3: Any, tmp_path: Path) -> None:
    """Same rows and identities as with folders; a night with nothing new finds the binding of the last one."""
    shutil.copytree(models / "bert", tmp_path / "bert")
    for weights in (tmp_path / "bert").glob("*.safetensors"):
        weights.unlink()
    width = resolve(str(clip), None, WHERE).json("config.json")["projection_dim"]
    weight = np.random.default_rng(0).normal(size=(8, width)).astype(np.float32)
    linear.save(str(tmp_path / "head.safetensors"), weight, "shared")
    s3.put(str(tmp_path / "bert"), "corpus/models/bert", recursive=True)
    s3.put_file(str(tmp_path / "head.safetensors"), "corpus/heads/head.safetensors")
    s3fs.S3FileSystem.clear_instance_cache()
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (number * 80, 0, 90)).save(tmp_path / "in" / f"{number}.png")
        (tmp_path / "in" / f"{number}.txt").write_text(f"a picture of {number} things")

    def features(clip: str, bert: str, head: str) -> dict[str, Any]:
        words = {"kind": "text", "checkpoint": bert, "max_length": 16}
        return {
            "i": {**_picture(clip), "head": {"kind": "linear", "weights": head}},
            "t": {"modality": "text", "tokenizer": words, "encoder": {"kind": "raw"}, "emit": ["token_ids"]},
        }

    local = features(str(clip), str(tmp_path / "bert"), str(tmp_path / "head.safetensors"))
    remote = features(URL, "s3://corpus/models/bert", "s3://corpus/heads/head.safetensors")
    bound = [run.prepare(config(tmp_path / "in", one), engine_name="inline") for one in (local, remote)]
    assert [one.identity for one in bound[0].features] == [one.identity for one in bound[1].features]
    report = run.extract(bound[0], show_progress=False)
    assert report["rows_written"] == 3
    again = run.extract(bound[1], show_progress=False)
    assert again["samples"] == 0
    assert bound[1].features[0].lineage()["model"] == URL


def test_a_head_and_a_tokenizer_that_change_during_a_run(clip: Path, models: Path, s3: Any, tmp_path: Path) -> None:
    """Workers that start later would compute other values."""
    width = resolve(str(clip), None, WHERE).json("config.json")["projection_dim"]
    linear.save(str(tmp_path / "head.safetensors"), np.ones((8, width), np.float32), "shared")
    s3.put_file(str(tmp_path / "head.safetensors"), "corpus/heads/head.safetensors")
    s3.put(str(models / "bert"), "corpus/models/bert", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    words = {"kind": "text", "checkpoint": "s3://corpus/models/bert", "max_length": 16}
    head = {"kind": "linear", "weights": "s3://corpus/heads/head.safetensors"}
    features = {
        "i": {**_picture(URL), "head": head},
        "t": {"modality": "text", "tokenizer": words, "encoder": {"kind": "raw"}, "emit": ["token_ids"]},
    }
    picture, text = binding.bind(config(tmp_path / "in", features))
    picture.head().setup()
    text.tokenizer().setup()
    linear.save(str(tmp_path / "head.safetensors"), np.zeros((8, width), np.float32), "shared")
    s3.put_file(str(tmp_path / "head.safetensors"), "corpus/heads/head.safetensors")
    s3.pipe("corpus/models/bert/notes.txt", b"new")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ConfigError, match=r"features\.i\.head\.weights: .* has changed since the driver read it"):
        picture.head()
    with pytest.raises(ConfigError, match=r"features\.t\.tokenizer\.checkpoint: .* has changed since the driver"):
        text.tokenizer()


def test_bindings_are_kept_until_the_url_changes(clip: Path, s3: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    made = config(tmp_path / "in", {"i": _picture(URL)})
    _binding_cache.store(made, binding.bind(made), time.time() + 60)
    assert _binding_cache.load(made) is not None
    s3.pipe("corpus/models/clip/notes.txt", b"new")
    s3fs.S3FileSystem.clear_instance_cache()
    assert _binding_cache.load(made) is None


def test_a_node_that_only_decodes_fetches_no_weights(proxy: FaultyProxy, clip: Path, cache: Path) -> None:
    driver = resolve(URL, None, WHERE)
    shutil.rmtree(driver.path)
    elsewhere = replace(driver, path=f"/elsewhere/{Path(driver.path).name}")
    proxy.requests.clear()
    found = on_this_machine(elsewhere, with_weights=False)
    assert found.preprocessing_sha256() == Checkpoint(str(clip), "", None, "").preprocessing_sha256()
    assert _gets(proxy, "model.safetensors") == 0
    assert on_this_machine(elsewhere).weights_sha256() == resolve(str(clip), None, WHERE).weights_sha256()
    tokenizer = replace(of_tokenizer(URL, None, WHERE), path=f"/elsewhere/{Path(found.path).name}")
    assert on_this_machine(tokenizer).path == found.path


def test_a_tokenizer_needs_no_weights(clip: Path, s3: Any, models: Path) -> None:
    s3.rm("corpus/models/clip/model.safetensors")
    s3fs.S3FileSystem.clear_instance_cache()
    there = Checkpoint(str(clip), "", None, "")
    assert of_tokenizer(URL, None, WHERE).preprocessing_sha256() == there.preprocessing_sha256()
    with pytest.raises(ConfigError, match=r"holds (only|no weights)"):
        resolve(URL, None, WHERE)
