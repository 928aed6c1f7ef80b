"""Which files a config opens."""

from __future__ import annotations

from pipeline.config.bound import roles_to_open


def test_roles() -> None:
    assert roles_to_open({"audio"}) == ("video", "audio", "other")
    assert roles_to_open({"text"}) == ("text", "other")
