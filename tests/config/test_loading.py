"""Configs from YAML and overrides; mistakes in them are one line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config as configs
from pipeline.core.errors import ConfigError
from tests.config.test_models import GOOD, SECRETS, _with


def test_a_good_config() -> None:
    config = configs.parse(GOOD)
    assert config.features["picture"].emit == ("embedding",)
    assert config.failures.max_fraction == 0.05
    with pytest.raises(ValueError, match="frozen"):
        config.output.path = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("sauce", 1, r"sauce: unknown key 'sauce'; known keys: source, output, features"),
        ("output.shard", 1, r"output\.shard: unknown key 'shard'; known keys: path, version, on_delete"),
        (
            "features.picture.encoder.size",
            1,
            r"features\.picture\.encoder\.size: unknown key 'size'; known keys: .*batch_",
        ),
        (
            "features.picture.encoder.kind",
            "vitt",
            r"features\.picture\.encoder\.kind: found 'vitt'; one of bert, .*vit, ",
        ),
        ("features.picture.encoder.dtype", "int4", r"features\.picture\.encoder\.dtype: found 'int4'; .*bfloat16"),
        ("features.picture.modality", "smell", r"features\.picture\.modality: found 'smell'; .*'text', 'image'"),
        ("features.picture.emit", [], r"features\.picture\.emit: found \[\]; name at least one"),
        ("features.picture.emit", ["tokens", "tokens"], r"features\.picture\.emit: .*each once"),
        ("features.picture.pool", "gpu", r"features\.picture\.pool: found 'gpu'; a pool of compute\.pools: default"),
        ("features.Picture", GOOD["features"]["picture"], r"features\.Picture: no name for columns; lower case"),
        ("window.length_s", -1, r"window\.length_s: found -1; input should be greater than 0"),
        ("window", {"length_s": 5, "overlap_s": 5}, r"window\.overlap_s: 5\.0 with length_s 5\.0; less than"),
        (
            "features.picture.encoder",
            {"checkpoint": "m"},
            r"features\.picture\.encoder\.kind: is missing; one of bert, ",
        ),
        (
            "features.picture.tokenizer",
            {"kind": "frame", "sampling": {"kind": "fps", "fps": -2}},
            r"features\.picture\.tokenizer\.sampling\.fps: found -2; input should be greater than 0",
        ),
        ("source.exclude", ["[b-a]"], r"source\.exclude: the glob '\[b-a\]' cannot be read .*; \*, \*\*"),
        ("source", {"kind": "manifest", "path": "m", "columns": {}}, r"source\.columns: names no column of media; one"),
        ("decoders.text.encoding", "klingon", r"decoders\.text\.encoding: found 'klingon'; a name that Python knows"),
        (
            "compute.pools.default",
            {"min_actors": 3, "max_actors": 2},
            r"compute\.pools\.default\.min_actors: 3 with max_actors 2; at most as many",
        ),
        ("failures.max_fraction", 1.5, r"failures\.max_fraction: found 1\.5; .*less than or equal to 1"),
        ("output.version", "../x", r"output\.version: found '\.\./x'"),
    ],
)
def test_mistakes_say_where_and_what(path: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        configs.parse(_with(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("source.path", "s3://AKIAX:hunter2@bucket/corpus"),
        ("output.path", "https://user:hunter2@host/out"),
        ("features.picture.encoder.checkpoint", "https://host/m?X-Amz-Algorithm=A&X-Amz-Signature=hunter2"),
        ("source.path", "https://hunter2@host/corpus"),
        ("source.path", "gs://bucket/corpus?access_token=hunter2"),
        ("source.path", "abfs://box@host/corpus?sv=2&sig=hunter2"),
        ("source.path", "s3://bucket/x?AWSAccessKeyId=A&Signature=hunter2"),
    ],
)
def test_secrets_are_refused_and_not_repeated(path: str, url: str) -> None:
    with pytest.raises(ConfigError, match=rf"{path}: a URL with a password or a signature") as caught:
        configs.parse(_with(path, url))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", SECRETS)
@pytest.mark.parametrize(
    "override",
    [
        "output.path={}",
        "output.path.x={}",
        "output.path=['{}']",
        "output.path={{a: '{}'}}",
        "output={}",
        "features.{}=1",
        "{}",
        "{}=1",
        "source.include=['{}', [",
        "source.{}=[",
        "compute.block_rows='{}'",
        "features={{x: {{modality: '{}'}}}}",
    ],
)
def test_no_override_shows_a_secret(tmp_path: Path, override: str, url: str) -> None:
    raw = {**GOOD, "output": {"path": "simplecache::s3://AKIAX:hunter2@bucket/x"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(raw if ".x=" in override else GOOD))
    with pytest.raises(ConfigError) as caught:
        configs.load(str(tmp_path / "x.yaml"), [override.format(url)])
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_storage_options_are_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"output\.path: found") as caught:
        configs.parse(_with("output.path", {"url": "s3://b/x", "key": "AKIAX", "secret": "hunter2"}))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a." * 100 + "b=1", r"100 levels; no config is so deep"),
        ("a." * 100_000 + "b=1", r"100000 levels; no config is so deep"),
        ("compute.block_rows=-0x" + "f" * 6000, r"a number of 6003 characters"),
        ("output.path=" + "[" * 100_000, r"over 100000 values or 50 levels"),
        ("output.path=" + "x" * (2 << 20), r"2097152 characters; at most 1048576"),
        ("output.path=\x1b]0;x\x07", r"--set output\.path: is not YAML"),
        ("output.\x1b[2J=1", r"output\.\\x1b\[2J: unknown key"),
        ("\udcff\u202e=1", r"config: found '\\udcff\\u202e'"),
    ],
)
def test_hostile_overrides(tmp_path: Path, override: str, expected: str) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError, match=expected) as caught:
        configs.load(str(tmp_path / "x.yaml"), [override])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1300


def test_values_that_python_cannot_show() -> None:
    with pytest.raises(ConfigError, match=r"failures\.min_rows: found a value of type int that is too large to show"):
        configs.parse(_with("failures.min_rows", -(16**6000)))


def test_a_config_that_is_no_config_is_not_read_whole() -> None:
    with pytest.raises(ConfigError, match="over 1048576 bytes"):
        configs.load("/dev/zero")


def test_missing_sections() -> None:
    with pytest.raises(ConfigError, match=r"output: is missing; it is required"):
        configs.parse({k: v for k, v in GOOD.items() if k != "output"})


def test_feature_columns_must_not_clash() -> None:
    raw = copy.deepcopy(GOOD)
    raw["features"]["a"] = raw["features"]["picture"]
    raw["features"]["a_prefix"] = raw["features"]["picture"]
    with pytest.raises(ConfigError, match=r"features\.a_prefix: its column 'a_prefix_tokens' is a's already"):
        configs.parse(raw)


def test_load_anchors_paths_and_applies_overrides(tmp_path: Path) -> None:
    raw = _with("source.path", "../corpus")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.yaml").write_text(yaml.safe_dump(raw))
    config = configs.load(str(tmp_path / "c" / "x.yaml"), ["output.path=there", "window.length_s=2.5"])
    assert config.source.path == str(tmp_path / "corpus")
    assert config.output.path == "there"
    assert config.window.length_s == 2.5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nothing", r"--set: 'nothing'; write dotted.key=value"),
        ("output.path.x=1", r"--set output\.path\.x: output\.path is 'out', not a section"),
        ("output={", r"--set output: is not YAML"),
        ("output.path={a: 1, a: 2}", r"--set output\.path: is not YAML .*'a' appears twice"),
        ("output.pth=1", r"output\.pth: unknown key"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, expected: str) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError, match=expected):
        configs.load(str(tmp_path / "x.yaml"), [override])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        configs.load(str(tmp_path / "no.yaml"))
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        configs.load(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="holds list"):
        configs.load(str(tmp_path / "b.yaml"))
    (tmp_path / "c.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="is not YAML"):
        configs.load(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("media", "window", "rows"),
    [
        (["text"], {}, (256, 512)),
        (["text", "image"], {}, (32, 128)),
        (["audio"], {}, (8, 32)),
        (["audio", "text"], {"length_s": 10}, (8, 128)),
        (["audio"], {"length_s": 20}, (8, 64)),
        (["audio"], {"length_s": 600}, (8, 32)),
        (["audio", "video"], {"length_s": 2}, (8, 32)),
    ],
)
def test_blocks_have_as_many_rows_as_their_media_let_them(
    media: list[str], window: dict[str, Any], rows: tuple[int, int]
) -> None:
    kinds = {"text": "text", "image": "patch", "video": "frame", "audio": "audio_frame"}
    features = {
        name: {"modality": name, "tokenizer": {"kind": kinds[name]}, "encoder": {"kind": "raw"}, "emit": ["tokens"]}
        for name in media
    }
    raw = {"source": {"kind": "files", "path": "in"}, "output": {"path": "out"}, "features": features, "window": window}
    found = configs.parse(raw)
    assert (found.least_rows, found.block_rows) == rows
    asked = configs.parse({**raw, "compute": {"block_rows": 7}})
    assert (asked.least_rows, asked.block_rows) == (7, 7)
