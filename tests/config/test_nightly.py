"""The section `nightly`: durations are checked with the config, and it decides no values of a dataset."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import config as configs
from pipeline.config.nightly import NightlyConfig
from pipeline.core.errors import ConfigError

_RAW: dict[str, Any] = {
    "source": {"kind": "files", "path": "in"},
    "output": {"path": "out"},
    "features": {
        "p": {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": {"kind": "raw"}, "emit": ["tokens"]}
    },
}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"keep": "a week"}, "nightly.keep: found 'a week'; a number and one of s, m, h, d, w"),
        ({"deadline": "4"}, "nightly.deadline: found '4'"),
        ({"wait": "9999w"}, "nightly.wait: found '9999w'; at most 5200w"),
        ({"small_shards": 1}, "nightly.small_shards"),
        ({"alert": {"max_fraction": 2}}, "nightly.alert.max_fraction"),
        ({"alarm": {}}, "nightly.alarm"),
    ],
)
def test_mistakes_name_their_place(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configs.parse({**_RAW, "nightly": section})
    assert str(raised.value).startswith(message)


def test_the_defaults() -> None:
    found = configs.parse(_RAW).nightly
    assert (found.deadline, found.wait, found.keep, found.small_shards) == (None, "30s", "7d", 16)
    assert found == NightlyConfig()
