"""The tree keeps its shape: imports go one way, every module has its twin test, configs stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pipeline"

ORDER = [
    "benchmark",
    "inspection",
    "upkeep",
    "run",
    "graph",
    "cluster",
    "pools",
    "progress",
    "trail",
    "budget",
    "report",
    "terminal",
    "stages",
    "sinks",
    "plan",
    "template",
    "features",
    "identity",
    "config",
    "yamls",
    "demo",
    "sources",
    "decoders",
    "heads",
    "encoders",
    "tokenizers",
    "isolation",
    "transaction",
    "state",
    "difference",
    "lease",
    "dataset",
    "reading",
    "snapshots",
    "collate",
    "malloc",
    "turns",
    "tensors",
    "schema",
    "checkpoint",
    "checkpoint_files",
    "parquet",
    "bounded_file",
    "parquet_levels",
    "parquet_pages",
    "folder",
    "storage",
    "roots",
    "local_files",
    "strict_json",
    "ranged",
    "remote_file",
    "seekable",
    "retrying",
    "private_folder",
    "media",
    "errors",
    "redaction",
    "escaping",
]
"""Rooms from the top to the ground. A module imports from rooms below its own, never above."""

FAMILIES = ("sources", "decoders", "tokenizers", "encoders", "heads")
HEAVY = ("torch", "torchaudio", "torchvision", "transformers", "decord", "av", "soundfile", "PIL", "ray")
RAY_ROOMS = {"graph.py", "cluster.py", "progress.py", "trail.py", "sinks/ray_sink.py"}


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
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


@pytest.mark.parametrize("family", FAMILIES)
def test_members_of_a_family_do_not_import_one_another(family: str) -> None:
    folder = PACKAGE / family
    shared = {"base"} | {path.stem for path in folder.glob("_*.py")}
    members = {path.stem for path in folder.glob("*.py")} - shared - {"__init__"}
    if family == "decoders":  # video_decord falls back to video_pyav; the rest are shared machinery
        members &= {"text", "image", "audio", "video_decord"}
    for path in (folder / f"{name}.py" for name in members):
        used = {n.split(".")[2] for n in _imports(path) if n.startswith(f"pipeline.{family}.") and n.count(".") >= 2}
        assert not used & (members - {path.stem}), f"{path.name} imports a sibling: {used & members}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_ray_stays_in_its_rooms(path: Path) -> None:
    if str(path.relative_to(PACKAGE)) not in RAY_ROOMS:
        assert not {n for n in _imports(path, top_level_only=True) if n.split(".")[0] == "ray"}


@pytest.mark.parametrize("module", ["pipeline.config", "pipeline.dataset"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path",
    [p for p in _modules() if p.name not in ("__init__.py", "base.py") and not p.stem.startswith("_")],
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
