"""The cgroups of this process."""

from __future__ import annotations

from pipeline.core.system import cgroups


def test_the_folders_are_those_of_this_process() -> None:
    for controller in ("cpu", "memory"):
        found = cgroups.folders(controller)
        assert found
        assert all(folder.is_relative_to("/sys/fs/cgroup") for folder in found)
