"""`tessera models` writes every demo checkpoint: complete, small, safetensors only, the same in every run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.checkpoint.checkpoint import resolve
from pipeline.demo.models import CHECKPOINTS, build


def test_every_family_of_encoders_has_one() -> None:
    """A member of `pipeline/encoders` without a demo checkpoint cannot be tried."""
    from pipeline.encoders import _MEMBERS

    kinds = {config.model_fields["kind"].annotation.__args__[0] for config in _MEMBERS}
    assert kinds - {"raw"} == set(CHECKPOINTS) - {"dinov2"}  # DINOv2 is read by `vit`


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_it_is_whole(models: Path, name: str) -> None:
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder = models / name
    found = resolve(str(folder), None, "x")
    own = json.loads((folder / "config.json").read_text())
    assert own["architectures"]
    assert found.model_config().model_type == own["model_type"]
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".model", ".jinja"}
    assert sum(path.stat().st_size for path in files) < 10_000_000


def test_it_has_what_its_encoder_reads_beside_the_weights(models: Path) -> None:
    """Words need a tokenizer, pixels and sound a processor, loaded here by `transformers` itself."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer, AutoVideoProcessor

    for loader, names in (
        (AutoTokenizer, ("bert", "clip", "siglip", "clap", "embedding_gemma2")),
        (AutoImageProcessor, ("clip", "siglip", "vit", "dinov2")),
        (AutoVideoProcessor, ("videomae", "vjepa2")),
        (AutoFeatureExtractor, ("wav2vec2", "whisper", "ast", "clap")),
        (AutoProcessor, ("embedding_gemma2",)),
    ):
        for name in names:
            assert loader.from_pretrained(models / name, local_files_only=True), name


def test_a_second_build_gives_the_same_bytes(models: Path, tmp_path: Path) -> None:
    written = build(str(tmp_path))
    assert [Path(path).name for path in written] == list(CHECKPOINTS)
    assert _digests(tmp_path) == _digests(models)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".ready"
    }
