"""What a dataset was made with against a config: older datasets, keys at their default, revisions of decoding."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.config import identity
from pipeline.config.features import BoundFeature, bind
from pipeline.config.loading import parse

PICTURE = {
    "modality": "image",
    "tokenizer": {"kind": "patch", "size": 32, "patch_size": 8},
    "encoder": {"kind": "raw"},
    "emit": ["tokens"],
}
FRAMES = {
    "modality": "video",
    "tokenizer": {"kind": "frame", "size": 32, "sampling": {"kind": "fps", "fps": 2}},
    "encoder": {"kind": "raw"},
    "emit": ["tokens"],
    "store": {"tokens": "float32"},
}
OF_CONTRACT_1: dict[str, Any] = {
    "contract": 1,
    "cut": None,
    "decoders": {
        "audio": {"soundfile": True},
        "image": {"background": [255, 255, 255], "truncated": False},
        "text": {"encoding": None, "html": "strip", "on_other": "detect"},
        "video": {"kind": "decord", "shorter_edge": 64},
    },
    "feature": {
        "emit": ["tokens"],
        "encoder": {"kind": "raw"},
        "head": {"kind": "native", "normalize": None},
        "modality": "video",
        "store": {"embedding": "float32", "tokens": "float32"},
        "tokenizer": {
            "kind": "frame",
            "patch_size": None,
            "sampling": {"fps": 2.0, "kind": "fps", "max_frames": 64},
            "size": 32,
            "tokens": "frame",
        },
    },
    "preprocessing": None,
    "space": "raw",
    "weights": None,
    "window": {"length_s": 5.0, "overlap_s": 0.0, "repeat_tokens": False, "tail": "keep"},
}
"""What the last commit of contract 1 stored for ``FRAMES``, as `frames` reads it below."""


def frames(**sections: Any) -> BoundFeature:
    given = {"window": {"length_s": 5}, "decoders": {"video": {"kind": "decord", "shorter_edge": 64}}, **sections}
    feature = given.pop("feature", FRAMES)
    raw = {"source": {"kind": "files", "path": "in"}, "output": {"path": "out"}, "features": {"f": feature}, **given}
    (found,) = bind(parse(raw))
    return found


def differing(stored: dict[str, Any], feature: BoundFeature) -> list[str]:
    return [path for path, _ in identity.of_feature(stored, feature.identity, feature.full_identity)]


def through_json(feature: BoundFeature) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(feature.identity))
    return found


def test_what_contract_1_stored() -> None:
    assert identity.as_in_contract_1(frames().full_identity) == OF_CONTRACT_1
    assert differing(OF_CONTRACT_1, frames()) == []
    assert identity.revision(OF_CONTRACT_1) == 1


def test_what_is_stored_today_has_no_key_at_its_default() -> None:
    found = frames().identity
    assert found["decoding"] == 2
    assert found["decoders"] == {"video": {"kind": "decord", "shorter_edge": 64}}
    assert found["window"] == {"length_s": 5.0}
    assert found["feature"]["store"] == {"tokens": "float32"}
    assert "head" not in found["feature"]
    assert found["feature"]["tokenizer"]["sampling"] == {"kind": "fps", "fps": 2.0}
    assert differing(through_json(frames()), frames()) == []


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"window": {"length_s": 6}}, "window.length_s"),
        ({"window": {"length_s": 5, "tail": "drop"}}, "window.tail"),
        ({"window": {}}, "window.length_s"),
        ({"decoders": {}}, "decoders.video"),
        ({"decoders": {"video": {"kind": "decord"}}}, "decoders.video.shorter_edge"),
        ({"feature": {**FRAMES, "store": {}}}, "feature.store.tokens"),
        ({"feature": {**FRAMES, "emit": ["tokens", "prefix_tokens"]}}, "feature.emit"),
        ({"feature": {**FRAMES, "head": {"kind": "native", "normalize": True}}}, "feature.head"),
        ({"feature": PICTURE}, "feature.modality"),
    ],
)
def test_what_differs_is_named_whichever_keys_are_stored(sections: dict[str, Any], path: str) -> None:
    here = frames(**sections)
    for stored in (through_json(frames()), OF_CONTRACT_1):
        found = differing(stored, here)
        assert any(one == path or one.startswith(f"{path}.") for one in found), found
    there = differing(through_json(here), frames())
    assert any(one == path or one.startswith(f"{path}.") for one in there), there


def test_a_key_that_only_a_later_tessera_knows() -> None:
    at_its_default = through_json(frames())
    changed = json.loads(json.dumps(at_its_default))
    changed["feature"]["store"]["layout"] = "fixed"
    changed["decoders"]["later"] = {"kind": "new"}
    assert differing(changed, frames()) in (
        ["feature.store.layout", "decoders.later"],
        ["decoders.later", "feature.store.layout"],
    )


def test_a_members_name_is_kept_and_a_default_factory_is_a_default() -> None:
    class Inner(BaseModel):
        kind: str = "a"
        size: int = 3

    class Outer(BaseModel):
        inner: Inner = Inner()
        many: list[int] = []
        needed: int

    assert identity.without_defaults(Outer(needed=3)) == {"needed": 3}
    assert identity.without_defaults(Outer(needed=3, many=[1])) == {"needed": 3, "many": [1]}
    other = Outer(needed=3, inner=Inner(size=4))
    assert identity.without_defaults(other) == {"needed": 3, "inner": {"kind": "a", "size": 4}}


def test_a_revision_is_no_difference() -> None:
    stored = {**through_json(frames()), "decoding": 1, "contract": 7}
    assert differing(stored, frames()) == []
    assert identity.revision(stored) == 1
    assert identity.revision({"decoding": "x"}) == 1
