"""Compares what decides the values of a feature, its identity, with what a dataset was made with.

Identities are plain values. Snapshots store them, and later runs compare them. Keys of the config that are at their
default are not stored, so that a later Tessera can add keys; therefore a default never changes. Decoding has a number
per medium, its *revision*. It is raised when the rules change what decoding gives. A run may continue a dataset of an
older revision, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pipeline.core.media import Modality

REVISIONS: dict[Modality, int] = {"text": 1, "image": 1, "video": 2, "audio": 2}
"""Revision of decoding by medium. 2: of several tracks the one that FFmpeg plays, and times to a tick of the
container's clock."""
_KINDS = ("kind",)
"""Keys that name the member of a family. They are stored even at their default."""
_NOT_COMPARED = ("contract", "decoding")
"""Keys of an identity that do not decide values."""
_LATER_KEYS = (
    ("decoders", "text", "svg"),
    ("decoders", "image", "floats"),
    ("decoders", "image", "previews"),
    ("feature", "store", "layout"),
)
"""Keys that contract 1 did not have."""


def without_defaults(model: BaseModel) -> dict[str, Any]:
    """Returns a section of the config as plain values, without the keys that are at their default."""
    plain = model.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        default = ... if info.is_required() else info.get_default(call_default_factory=True)
        if name in _KINDS or value != default:
            found[name] = without_defaults(value) if isinstance(value, BaseModel) else plain[name]
    return found


def differences(stored: dict[str, Any], given: dict[str, Any], full: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (dotted path, what it is in the dataset and here) for every value that differs.

    Args:
        stored: what a dataset was made with, with or without the keys at their default.
        given: the config's identity, without the keys at their default.
        full: the config's identity, with these keys.
    """
    for name in dict.fromkeys([*stored, *given]):
        there, here, own = stored.get(name, {}), full.get(name), given.get(name)
        if name not in full:
            yield name, "is not in the config"
        elif isinstance(there, dict) and isinstance(here, dict):
            below = differences(there, own if isinstance(own, dict) else {}, here)
            yield from ((f"{name}.{path}", how) for path, how in below)
        elif name in stored and there != here:
            yield name, f"is {there!r} there, {here!r} here"
        elif name not in stored:
            yield name, f"is not given there, {here!r} here"


def of_feature(stored: dict[str, Any], given: dict[str, Any], full: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the `differences` of a feature, except contract and revision of decoding, which do not count as such."""
    ours = ({name: value for name, value in one.items() if name not in _NOT_COMPARED} for one in (stored, given, full))
    return list(differences(*ours))


def revision(stored: dict[str, Any]) -> int:
    """Returns the revision of decoding that a feature was made with."""
    found = stored.get("decoding", 1)
    return found if isinstance(found, int) else 1


def as_in_contract_1(full: dict[str, Any]) -> dict[str, Any]:
    """Returns a feature's identity as contract 1 stored it: with all keys that existed then."""
    found = {name: _copied(value) for name, value in full.items() if name != "decoding"}
    for *parents, last in _LATER_KEYS:
        section = found
        for name in parents:
            section = section[name]
        section.pop(last, None)
    if not found["feature"]["encoder"].get("compile"):
        found["feature"]["encoder"].pop("compile", None)
    for medium in ("image", "video"):
        if found["decoders"][medium].get("shorter_edge", ...) is None:
            del found["decoders"][medium]["shorter_edge"]
    return {"contract": 1, **found}


def _copied(value: Any) -> Any:
    """Returns nested dicts as new dicts."""
    return {name: _copied(one) for name, one in value.items()} if isinstance(value, dict) else value
