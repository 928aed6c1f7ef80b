"""What a card says: lineage, without paths of this machine."""

from __future__ import annotations

import pytest

from pipeline.core.errors import ConfigError
from pipeline.dataset import Dataset
from pipeline.export.card import facts


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("/home/ann/models/clip", "clip"),
        ("/home/ann/models/clip/", "clip"),
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
        ("s3://bucket/models/clip", "s3://bucket/models/clip"),
        ("s3://key:password1@bucket/clip", "s3://***@bucket/clip"),
        ("", ""),
        ("a\nb\x1b", r"a b\x1b"),
    ],
)
def test_names_of_models(model: str, shown: str) -> None:
    assert facts.public_model(model) == shown


def test_where_a_card_belongs(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = Dataset.__new__(Dataset)
    data.root = "s3://bucket/name/v1"
    assert facts.dataset_folder(data, "s3://bucket/name") == "s3://bucket/name"
    assert facts._name(data.root) == "name"
    with pytest.raises(ConfigError, match="--out: 's3://bucket/name/v1/' is the folder of one version"):
        facts.dataset_folder(data, "s3://bucket/name/v1/")
    assert facts._name("/a/b/v1") == "b"
    assert facts._name("v1") != ""
