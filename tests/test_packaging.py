"""What the package says of itself: its license, its changes, and dependencies that some machines do not have."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ARM = {"platform_machine": "aarch64", "sys_platform": "linux", "python_version": "3.11"}


def _asked(*groups: str) -> list[Requirement]:
    extra = [one for group in groups for one in PROJECT["optional-dependencies"][group]]
    return [Requirement(one) for one in [*PROJECT["dependencies"], *extra]]


def _pinned() -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines()]


def test_the_license_is_the_one_that_the_project_names() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004\s", text)
    assert "Copyright 2026 The Tessera authors" in text
    assert [number for number in range(1, 10) if not re.search(rf"^   {number}\. ", text, flags=re.M)] == []
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)


def test_decord_is_left_out_where_it_has_no_wheels() -> None:
    for requirements in (_asked(), _pinned()):
        (decord,) = [one for one in requirements if one.name == "decord"]
        assert decord.marker is not None
        assert decord.marker.evaluate({**ARM, "platform_machine": "x86_64"})
        assert not decord.marker.evaluate(ARM)
        assert [one.name for one in requirements if one.marker and one is not decord] == []


def test_every_dependency_is_pinned_to_a_version_that_the_project_allows() -> None:
    pins = {one.name: str(one.specifier).removeprefix("==") for one in _pinned()}
    missing = [one.name for one in _asked("dev", "openlineage", "export") if one.name.lower() not in pins]
    assert missing == []
    wrong = [
        str(one) for one in _asked("dev", "openlineage", "export") if not one.specifier.contains(pins[one.name.lower()])
    ]
    assert wrong == []
