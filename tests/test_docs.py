"""What the documents say is so: every key with its default, every ready config, every command."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from pipeline import config as configs
from pipeline.config.features import bind
from pipeline.core.errors import ConfigError
from tests.support import ROOT

COMMON = "encoder: every one with a checkpoint"
PLACES = {
    "features": "features.NAME",
    "pools": "compute.pools.NAME",
    "store": "features.NAME.store",
    "s3": "storage.s3.BUCKET",
    "alert": "nightly.alert",
    "webhook": "nightly.webhook",
}
"""Headings of sections that do not stand under their own name."""


# -- docs/config.md ----------------------------------------------------------------------------------


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _sections(model: type[BaseModel] = configs.PipelineConfig, title: str = "config") -> dict[str, type[BaseModel]]:
    """Heading -> the model that it explains, walked through the models' own fields."""
    found = {title: model}
    base = "" if title == "config" else f"{title.split(':')[0]}."
    for name, field in model.model_fields.items():
        for member in _models(field.annotation):
            place = PLACES.get(name, f"{base}{name}" if base in ("source.", "decoders.") else name)
            kind = _kind(member)
            found |= _sections(member, f"{place}: {kind}" if kind else place)
    return found


def _kind(model: type[BaseModel]) -> str | None:
    """Returns the only kind of a member of a family. None: the model belongs to no family."""
    kind = model.model_fields.get("kind")
    names = get_args(kind.annotation) if kind else ()
    return names[0] if len(names) == 1 else None


def _tables() -> dict[str, dict[str, tuple[str, str]]]:
    """Heading -> key -> (default, meaning); a heading of several kinds counts for each."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for part in re.split(r"^#{2,3} ", (ROOT / "docs" / "config.md").read_text(), flags=re.M)[1:]:
        heading, _, body = part.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", body, flags=re.M)
        place, colon, kinds = heading.partition(": ")
        for kind in kinds.split(", "):
            found[f"{place}{colon}{kind}"] = {key: (default.strip("`"), meaning) for key, default, meaning in rows}
    return found


SECTIONS, TABLES = _sections(), _tables()


def _documented(title: str) -> dict[str, tuple[str, str]]:
    own = TABLES[title]
    has_checkpoint = title.startswith("encoder: ") and "checkpoint" in SECTIONS[title].model_fields
    return {**TABLES[COMMON], **own} if has_checkpoint else own


def test_the_walk_found_the_sections() -> None:
    assert {"config", "output", "source: manifest", "source.columns", "sampling: fps", "encoder: raw"} <= set(SECTIONS)
    assert {"features.NAME", "features.NAME.store", "compute.pools.NAME", "decoders.video: pyav"} <= set(SECTIONS)
    assert len(SECTIONS) == len({id(model) for model in SECTIONS.values()}) > 30


@pytest.mark.parametrize("title", sorted(SECTIONS))
def test_every_key_is_explained_and_none_is_invented(title: str) -> None:
    assert title in TABLES, f"docs/config.md has no heading {title!r}"
    model = SECTIONS[title]
    assert set(_documented(title)) == set(model.model_fields) - ({"kind"} if _kind(model) else set())


@pytest.mark.parametrize("title", sorted(SECTIONS))
def test_defaults_and_choices_are_those_of_the_code(title: str) -> None:
    for key, field in SECTIONS[title].model_fields.items():
        if key == "kind" and _kind(SECTIONS[title]):
            continue
        default, meaning = _documented(title)[key]
        assert _means(default, field), (
            f"{title}: {key}: the default is {field.get_default(call_default_factory=True)!r}, not {default}"
        )
        for choice in _choices(field.annotation):
            assert f"`{choice}`" in meaning, f"{title}: {key}: {choice!r} is not explained"


def _means(default: str, field: FieldInfo) -> bool:
    if default == "required" or field.is_required():
        return default == "required" and field.is_required()
    value: object = TypeAdapter(field.annotation).validate_python(yaml.safe_load(default))
    return value == field.get_default(call_default_factory=True)


def _choices(annotation: Any) -> list[str]:
    """The values of a Literal, alone, optional or in a tuple."""
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if isinstance(choice, str)]
    if isinstance(annotation, type):
        return []
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def test_headings_name_only_what_there_is() -> None:
    families = {re.split(r"[:.]", title)[0] for title in SECTIONS}
    assert set(TABLES) - set(SECTIONS) - families - {COMMON} == set()


def test_tokenizers_and_encoders_fit_as_the_table_says(models: Path) -> None:
    """Each pair of the table binds with the demo checkpoints; no pair that binds is missing."""
    text = (ROOT / "docs" / "config.md").read_text()
    rows = re.findall(r"^\| (text|image|video|audio) \| `(\w+)` \| (.*) \|$", text, flags=re.M)
    reported = {(modality, kind, name.strip(" `")) for modality, kind, names in rows for name in names.split(",")}
    encoders = [title.removeprefix("encoder: ") for title in SECTIONS if title.startswith("encoder: ")]
    fits = {
        (modality, kind, encoder)
        for modality, kind in {(modality, kind) for modality, kind, _ in reported}
        for encoder in encoders
        if encoder != "raw" and _binds(models, modality, kind, encoder)
    }
    assert ("text", "text", "bert") in reported
    assert {pair for pair in reported if pair[2] != "raw"} == fits
    assert {pair[:2] for pair in reported if pair[2] == "raw"} == {pair[:2] for pair in reported}


def _binds(models: Path, modality: str, tokenizer: str, encoder: str) -> bool:
    one = {
        "modality": modality,
        "tokenizer": {"kind": tokenizer},
        "encoder": {"kind": encoder, "checkpoint": str(models / encoder)},
    }
    raw = {"source": {"kind": "files", "path": "x"}, "output": {"path": "y"}, "features": {"f": one}}
    try:
        bind(configs.parse(raw))
    except ConfigError:
        return False
    return True


# -- configs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_ready_configs_bind(path: Path, models: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    overrides = [
        f"features.{name}.encoder.checkpoint={models / Path(feature['encoder']['checkpoint']).name}"
        for name, feature in raw["features"].items()
        if "checkpoint" in feature["encoder"]
    ]
    features = bind(configs.load(str(path), overrides))
    assert [feature.name for feature in features] == list(raw["features"])
    shared = {feature.space for feature in features if feature.emits("embedding")}
    assert len(shared) == 1, "the ready configs show one space over all modalities"


def test_checkpoints_of_ready_configs_are_those_that_setup_writes() -> None:
    from pipeline.demo.models import CHECKPOINTS

    for path in (ROOT / "configs").glob("*.yaml"):
        for feature in configs.load(str(path)).features.values():
            checkpoint = Path(feature.encoder.checkpoint)
            assert (checkpoint.parent, checkpoint.name in CHECKPOINTS) == (ROOT / ".demo" / "models", True)


def test_the_readme_shows_the_first_config_as_it_is() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert (ROOT / "configs" / "first.yaml").read_text() in blocks


# -- commands ----------------------------------------------------------------------------------------


def _pages() -> list[Path]:
    return [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").glob("*.yaml"), ROOT / "Makefile"]


def _commands() -> list[str]:
    """Every `tessera ...` of the documents, up to a comment or a closing backtick."""
    found = []
    for path in _pages():
        text = path.read_text()
        blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S) if path.suffix == ".md" else [text]
        lines = [line for block in blocks for line in block.splitlines()]
        if path.suffix == ".md":
            lines += re.findall(r"`(tessera [^`]+)`", text)
        for line in lines:
            if match := re.match(r"^(?:#\s+|\t)?(?:\S*/)?tessera (.*?)(?:\s+#.*)?$", line):
                found.append(match[1])
    return sorted(set(found))


def test_commands_were_found() -> None:
    commands = _commands()
    assert {command.split()[0] for command in commands} >= {"extract", "inspect", "models", "corpus"}
    assert any("--plan" in command for command in commands)
    assert any("--set" in command for command in commands)


@pytest.mark.parametrize("command", _commands())
def test_every_command_parses(command: str) -> None:
    """Subcommand, options and arguments; nothing is run."""
    from jobs.cli import app

    name, *args = shlex.split(command)
    group: Any = typer.main.get_command(app)
    assert name in group.commands
    if not args:  # the command's name in a sentence
        return
    context = group.commands[name].make_context(name, args)
    config = context.params.get("config", "CONFIG")
    assert config == "CONFIG" or (ROOT / config).is_file()


@pytest.mark.timeout(600)
def test_everything_in_the_readme_runs(
    tmp_path: Path,
    models: Path,
    demo_corpus: Path,
    ray_session: Any,
    extracting: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its commands in order, then its Python, in a checkout of its own; `make` is what made this environment.

    The corpus is a part of the demo's, each modality in it.
    """
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "models").symlink_to(models)
    for path in sorted(demo_corpus.rglob("*")):
        if path.is_file() and re.search(r"0[012]\.\w+$|broken/", str(path)):
            copy = tmp_path / ".demo" / "corpus" / path.relative_to(demo_corpus)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    text = (ROOT / "README.md").read_text()
    commands = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, flags=re.S)
        for line in block.splitlines()
        if not line.startswith("make ")
    ]
    assert len(commands) >= 4
    monkeypatch.chdir(tmp_path)
    for command in commands:
        program, *args = shlex.split(command, comments=True)
        assert program == ".venv/bin/tessera"
        done = extracting(*args)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert "picture" in capsys.readouterr().out


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"demo", "test", "setup"} <= named <= targets


def test_every_file_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`((?:docs|configs|infra|pipeline|jobs|tests)/[\w./-]*)`", text))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
