"""The tree keeps its shape: imports go one way, every module has its twin test, configs stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "pipeline"

ORDER = (
    "benchmark",
    "demo",
    "nightly",
    "run",
    "engine",
    "stages",
    "sandbox",
    "config",
    "sources",
    "heads",
    "encoders",
    "tokenizers",
    "decoders",
    "export",
    "training",
    "dataset",
    "telemetry",
    "checkpoint",
    "parquet",
    "storage",
    "core",
)
"""Rooms from the top to the ground. A module imports from rooms below its own, never above."""

FAMILIES = ("sources", "decoders", "tokenizers", "encoders", "heads")
"""Rooms of members, one file each, which never import one another."""
MAX_FILES = 14
"""In a folder that is no family."""
HEAVY = (
    "torch",
    "torchaudio",
    "torchvision",
    "transformers",
    "decord",
    "av",
    "soundfile",
    "PIL",
    "ray",
    "prometheus_client",
    "datasets",
    "lance",
    "mlcroissant",
    "webdataset",
)


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path, top_level_only: bool = False, with_types: bool = True) -> set[str]:
    tree = ast.parse(path.read_text())
    if not with_types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node))
        ]
    nodes = ast.walk(tree)
    if top_level_only:
        nodes = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_has_its_place() -> None:
    assert {_room(path) for path in _modules()} == set(ORDER)


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = ORDER.index(_room(path))
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "pipeline" or len(parts) < 2:
            continue
        assert ORDER.index(parts[1]) >= own, f"{path.relative_to(ROOT)} imports {name}, a room above its own"


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports for type checkers alone do not count, nor does an ``__init__``, which only hands names on."""
    files = {_dotted(path): path for path in _modules()}
    arrows = {
        name: {found for one in _imports(path, with_types=False) if (found := _file_of(one, files)) not in (None, name)}
        for name, path in files.items()
        if path.name != "__init__.py"
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in sorted(arrows.get(name, ())):
                visit(other, (*way, name))
            done.add(name)

    for name in arrows:
        visit(name, ())


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _file_of(name: str, files: dict[str, Path]) -> str | None:
    """The module that an imported name is, or is in."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize("family", FAMILIES)
def test_members_of_a_family_do_not_import_one_another(family: str) -> None:
    folder = PACKAGE / family
    members = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "pixel_processor"}
    if family == "decoders":  # video_decord falls back to video_pyav; opening knows them all
        members &= {"text", "image", "audio", "video_decord"}
    for path in (folder / f"{name}.py" for name in members):
        used = {n.split(".")[2] for n in _imports(path) if n.startswith(f"pipeline.{family}.") and n.count(".") >= 2}
        assert not used & (members - {path.stem}), f"{path.name} imports a sibling: {used & members}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_modules_stay_in_their_folder(path: Path) -> None:
    for name in _imports(path):
        parts = name.split(".")
        private = [i for i, part in enumerate(parts[:-1]) if part.startswith("_")]
        if parts[0] == "pipeline" and private:
            owner = PACKAGE.joinpath(*parts[1 : private[0]])
            assert owner in path.parents, f"{path.relative_to(ROOT)} imports {name}"


def test_training_is_imported_by_nothing_else() -> None:
    """Extractions do not depend on it."""
    others = [path for path in _modules() if _room(path) != "training"]
    assert [path for path in others if any(name.startswith("pipeline.training") for name in _imports(path))] == []


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ray_stays_in_its_room(path: Path) -> None:
    if PACKAGE / "engine" / "ray" not in path.parents:
        assert not {n for n in _imports(path, top_level_only=True) if n.split(".")[0] == "ray"}


@pytest.mark.parametrize(
    "module",
    ["pipeline", "pipeline.config", "pipeline.dataset", "pipeline.export", "pipeline.run", "pipeline.training"],
)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_folder_begins_with_its_map(folder: Path) -> None:
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert len(files) > 1, "a folder of one file"
    inside = folder.relative_to(PACKAGE).parts
    assert len(files) <= MAX_FILES or inside[0] in FAMILIES
    page = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(page.splitlines()) > 1, "no map"
    if inside not in {(family,) for family in FAMILIES}:  # their members are a table in it
        missing = {name for name in files if f"\n{name}" not in page}
        assert not missing, f"the map of {folder.relative_to(ROOT)} lacks {sorted(missing)}"
    for name in re.findall(r"^(\w+\.py)\b", page, re.MULTILINE):
        assert name in files, f"the map of {folder.relative_to(ROOT)} names {name}"


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in _modules()
        if path.name not in ("__init__.py", "base.py")
        and not any(part.startswith("_") for part in path.relative_to(PACKAGE).parts)
        and any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(path.read_text())))
    ],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_every_module_has_its_twin(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    twin = ROOT / "tests" / relative.parent / f"test_{relative.name}"
    assert twin.exists(), f"no {twin.relative_to(ROOT)}"


def test_no_gate_is_pretended() -> None:
    for path in (ROOT / "Makefile", ROOT / ".ci" / "run"):
        assert "|| true" not in path.read_text()


def test_only_one_place_opens_containers() -> None:
    """With `av.open` by itself FFmpeg would follow names that it finds inside a file."""
    for path in _modules():
        if path.relative_to(PACKAGE).parts[0] != "demo":
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            named = {ast.unparse(node.func) for node in calls}
            assert "av.open" not in named or path.name == "demuxer.py", path


# -- names and language ---------------------------------------------------------------------------

GONE = [
    "Trail",
    "Turns",
    "Beside",
    "Isolated",
    "Orders",
    "Noted",
    "Watcher",
    "Parcel",
    "CarryStage",
    "Twice",
    "Forked",
    "let_go",
    "barred",
    "settle",
    "adopt",
    "_sweep",
    "_stand",
    "_find_room",
    "ended_without_room",
    "may_pass",
    "_own_place",
    "publishing",
    "unwatched",
]
"""Names that said nothing to an engineer of this field."""
RIDDLES = re.compile(r"\b(told|tells|stands?|nobody|whom|anew|barred)\b")
MOST_RIDDLES = 20


def _sources() -> list[Path]:
    return [*PACKAGE.rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]


def test_names_that_said_nothing_are_gone() -> None:
    for path in _sources():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
        assert not names & {*GONE}, f"{path.relative_to(ROOT)}: {names & {*GONE}}"


def test_the_language_is_plain() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _sources()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if RIDDLES.search(line)
    ]
    assert len(found) <= MOST_RIDDLES, "\n".join(found)


def test_files_and_functions_are_short() -> None:
    for path in _sources():
        text = path.read_text()
        assert len(text.splitlines()) <= 250, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 60, f"{path.relative_to(ROOT)}: {node.name}"
