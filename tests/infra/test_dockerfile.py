"""The image: linted, pinned, without root, built from what its COPY lines copy alone. No container runtime is used."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT
from tests.support.kubernetes import tool
from tests.support.ray_cluster import python_without_tessera

DOCKERFILE = ROOT / "infra" / "Dockerfile"
TEXT = DOCKERFILE.read_text()
LOCK = (ROOT / "requirements.lock").read_text()
PYTORCH = ("torch", "torchaudio", "torchvision")


def _stages() -> dict[str, list[str]]:
    """Instructions of each stage, by its name; lines that go on are joined."""
    joined = re.sub(r"\\\n\s*", "", TEXT)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    found: dict[str, list[str]] = {"": []}
    for line in lines:
        if match := re.match(r"FROM (\S+) AS ([\w-]+)$", line):
            found[match[2]] = [f"FROM {match[1]}"]
        else:
            found[list(found)[-1]].append(line)
    return found


STAGES = _stages()


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    hadolint = tool("hadolint")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(TEXT.replace("USER 1000:1000", "USER root").replace("uv==0.13.9", "uv"))
    done = subprocess.run([hadolint, str(wrong)], capture_output=True, text=True, check=False)
    assert {"DL3002", "DL3013"} <= set(re.findall(r"DL\d+", done.stdout))


def test_what_is_installed_is_pinned() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", TEXT, flags=re.M)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", image), "a tag of one version, whose digest can be pinned"
    (uv,) = set(re.findall(r"uv==([\d.]+)", TEXT))
    assert f"uv=={uv}" in (ROOT / "Makefile").read_text()
    for line in (line for lines in STAGES.values() for line in lines if "pip install" in line):
        for command in line.split("&&"):
            if "uv pip install" in command and "torch.txt" not in command:
                assert re.search(r"--(build-)?constraints requirements\.lock", command), command
    assert not re.search(r"\b(apt|apt-get|dpkg)\b", TEXT), "packages of the system are those of the base"
    assert not any(line.startswith("ADD ") for lines in STAGES.values() for line in lines)


def test_every_package_that_tessera_needs_is_in_the_lock_file() -> None:
    """All that an installation with the extras of the image brings; none of them is a tool of development."""
    pins = {canonicalize_name(Requirement(line).name) for line in LOCK.splitlines()}
    extras = {tuple(re.findall(r"--extra (\w+)", line)) for line in TEXT.splitlines() if "--requirements pypro" in line}
    assert extras == {("openlineage",)}, "the same in both targets"
    needed = _needed("tessera[openlineage]")
    assert needed - pins == set()
    assert {"torch", "ray", "pyarrow", "s3fs", "aiohttp", "openlineage-python"} <= needed
    assert needed & {"pytest", "mypy", "ruff", "moto", "duckdb", "polars", "datasets"} == set()


def _needed(name: str) -> set[str]:
    found: set[str] = set()
    waiting = [Requirement(name)]
    while waiting:
        asked = waiting.pop()
        key = canonicalize_name(asked.name) + str(sorted(asked.extras))
        if key in found:
            continue
        found.add(key)
        for line in importlib.metadata.requires(asked.name) or []:
            requirement = Requirement(line)
            extras = ["", *asked.extras]
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    return {re.sub(r"\[.*\]$", "", key) for key in found} - {"tessera"}


def test_the_cpu_target_takes_all_of_pytorch_from_one_index(tmp_path: Path) -> None:
    (line,) = [line for line in STAGES["build-cpu"] if "torch.txt" in line]
    first, second, third = (command.removeprefix("RUN ").strip() for command in line.split("&&"))
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    subprocess.run(["sh", "-c", first], cwd=tmp_path, check=True)
    pins = [Requirement(each) for each in (tmp_path / "torch.txt").read_text().splitlines()]
    assert tuple(sorted(pin.name for pin in pins)) == PYTORCH
    assert "--no-deps" in second
    assert '--default-index "${TORCH_CPU_INDEX}"' in second
    assert "ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu" in STAGES["build-cpu"]
    assert third == STAGES["build-cuda"][1].removeprefix("RUN ")
    assert all(pin.specifier.contains(f"{str(pin.specifier).removeprefix('==')}+cpu") for pin in pins)


def test_the_stages_that_run_are_without_root_and_without_tools() -> None:
    for target in ("cpu", "cuda"):
        assert STAGES[target][0] == "FROM runtime"
        assert [line for line in STAGES[target] if line.startswith("COPY")] == [
            f"COPY --from=build-{target} /opt/tessera /opt/tessera"
        ]
        assert not [line for line in STAGES[target] if line.startswith(("RUN", "USER"))]
    assert [line for line in STAGES["runtime"] if line.startswith("USER")] == ["USER 1000:1000"]
    assert not any("pip" in line for line in STAGES["runtime"])
    assert list(STAGES)[-1] == "cpu", "what is built without --target"


def _copied(stage: str) -> set[str]:
    lines = [*STAGES["build"], *STAGES[stage]]
    return {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}


def test_the_builder_gets_only_what_is_copied() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == _copied("build-cpu")
    assert _copied("build-cpu") == _copied("build-cuda")
    assert {"**/__pycache__", "**/*.pyc"} <= set(lines)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A folder with an environment as in the image, made by the steps of the Dockerfile; others may read it."""
    folder = Path(tempfile.mkdtemp(prefix="tessera-image-"))
    folder.chmod(0o755)
    build = folder / "build"
    build.mkdir()
    for name in _copied("build-cuda"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, build / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, build)
    python = python_without_tessera(folder / "tessera")
    assert STAGES["build-cuda"][-1] == "RUN uv pip install --no-deps --build-constraints requirements.lock ."
    uv = [str(ROOT / ".venv" / "bin" / "uv"), "pip", "install", "--python", python, "--no-deps", "--offline"]
    # with setuptools of this environment, since nothing is fetched here
    subprocess.run([*uv, "--no-build-isolation", "."], cwd=build, check=True, capture_output=True)
    shutil.rmtree(build)
    yield folder / "tessera"
    shutil.rmtree(folder)


def _as_user(image: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of the image as user 1000, in a folder of this user's, with the variables of the image only."""
    (variables,) = [line for line in STAGES["runtime"] if line.startswith("ENV ")]
    environment = dict(re.findall(r"(\w+)=(\S+)", variables))
    environment |= {"PATH": f"{image}/bin:/usr/bin:/bin", "COLUMNS": "200"}
    prefix: list[str] = []
    if os.geteuid() == 0:  # only reading is allowed beyond the user's own rights: the interpreter may be in root's home
        capability = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
        prefix = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", *capability, "--no-new-privs"]
    with tempfile.TemporaryDirectory(prefix="tessera-home-") as home:
        if os.geteuid() == 0:
            os.chown(home, 1000, 1000)
        command = (*prefix, str(image / "bin" / command[0]), *command[1:])
        return subprocess.run(
            command, capture_output=True, text=True, cwd=home, env={**environment, "HOME": home}, check=False
        )


def test_the_programs_of_the_image_run_as_its_user(image: Path) -> None:
    helped = _as_user(image, "tessera", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "submit" in helped.stdout
    where = _as_user(image, "python", "-c", "import os, jobs, pipeline; print(os.geteuid(), pipeline.__file__)")
    user, _, file = where.stdout.strip().partition(" ")
    assert user == str(os.geteuid() or 1000)
    assert Path(file).is_relative_to(image), "not this checkout"
    driver = _as_user(image, "python", "-m", "jobs.extract", "config.json")
    assert (driver.returncode, driver.stderr.split(":")[:2]) == (2, ["jobs.extract", " RAY_ADDRESS"])


def test_a_run_of_the_image_writes_rows(image: Path, tmp_path: Path) -> None:
    """The package holds all that a run needs: a picture without a model, on the engine `local`."""
    from tests.jobs.commands import write_config

    folder = Path(tempfile.mkdtemp(prefix="tessera-work-"))
    try:
        config = write_config(folder, failures={"max_fraction": 1.0})
        for each in (folder, *folder.rglob("*")):
            os.chown(each, 1000, 1000) if os.geteuid() == 0 else None
        done = _as_user(image, "tessera", "extract", str(config), "--engine", "local", "--json")
        assert done.returncode == 0, done.stderr
        assert len(list(folder.glob("out/v1/data/*.parquet"))) == 1
    finally:
        shutil.rmtree(folder)
