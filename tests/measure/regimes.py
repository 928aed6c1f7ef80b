"""The regimes of docs/performance.md: `python -m tests.measure.regimes NAME FOLDER [arguments of tessera benchmark]`.

Writes the regime's checkpoint and config into FOLDER, then runs ``tessera benchmark`` over it against the reference.
The media are the real ones (see tests/conftest.py).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

DATA = Path(os.environ.get("TESSERA_DATA", ROOT.parent / "shared" / "data")).resolve()
_SMALL: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def _config(source: Any, features: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {"source": source, "output": {"path": "./dataset"}, "features": features, **sections}


def _files(kind: str) -> dict[str, Any]:
    return {"kind": "files", "path": str(DATA / kind)}


def _vit(folder: Path) -> str:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    from pipeline.demo.checkpoints._seeded import save

    save(ViTModel, ViTConfig(**_SMALL, image_size=224, patch_size=32), str(folder / "vit"))
    ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder / "vit")
    return "./vit"


def images(folder: Path) -> dict[str, Any]:
    """Decode-bound: pictures into a ViT of two layers."""
    encoder = {"kind": "vit", "checkpoint": _vit(folder)}
    feature = {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": encoder}
    return _config(_files("images"), {"image": feature})


def clip(folder: Path, **options: Any) -> dict[str, Any]:
    """Encode-bound: pictures into CLIP ViT-B/32 of true size."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from pipeline.demo.checkpoints._seeded import save
    from pipeline.demo.checkpoints._vision_tokenizers import clip_tokenizer

    tokenizer = clip_tokenizer()
    save(CLIPModel, CLIPConfig(text_config={"num_hidden_layers": 2}), str(folder / "clip"))
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder / "clip")
    encoder = {"kind": "clip", "checkpoint": "./clip"}
    feature = {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": {**encoder, **options}}
    return _config(_files("images"), {"image": feature})


def clip_bfloat16(folder: Path) -> dict[str, Any]:
    return clip(folder, dtype="bfloat16")


def clip_int8(folder: Path) -> dict[str, Any]:
    return clip(folder, dtype="int8", device="cpu")


def video(folder: Path) -> dict[str, Any]:
    """Decode-bound: 8 frames of each 2 s, one by one into a ViT of two layers."""
    encoder = {"kind": "vit", "checkpoint": _vit(folder)}
    tokenizer = {"kind": "frame", "sampling": {"kind": "uniform", "frames": 8}}
    feature = {"modality": "video", "tokenizer": tokenizer, "encoder": encoder}
    return _config(_files("videos"), {"video": feature}, window={"length_s": 2.0})


def audio(folder: Path) -> dict[str, Any]:
    """Decode-bound: log-mel of 10 s at 16 kHz into a transformer of two layers."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    from pipeline.demo.checkpoints._seeded import save

    strides = {"patch_size": 32, "frequency_stride": 32, "time_stride": 32}
    save(ASTModel, ASTConfig(**_SMALL, **strides, max_length=1024, num_mel_bins=128), str(folder / "ast"))
    ASTFeatureExtractor(max_length=1024, num_mel_bins=128).save_pretrained(folder / "ast")
    encoder = {"kind": "ast", "checkpoint": "./ast"}
    feature = {"modality": "audio", "tokenizer": {"kind": "audio_frame"}, "encoder": encoder}
    return _config(_files("audio"), {"audio": feature}, window={"length_s": 10.0})


def text(folder: Path) -> dict[str, Any]:
    """Texts of 4 to 256 tokens, in no order, into a BERT of six layers, 384 wide."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import BertConfig, BertModel, BertTokenizer

    from pipeline.demo.checkpoints._seeded import save, sentences, wordpieces

    tokenizer = BertTokenizer(vocab=wordpieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]), model_max_length=512)
    width = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    save(BertModel, BertConfig(**width, vocab_size=len(tokenizer)), str(folder / "bert"))
    tokenizer.save_pretrained(folder / "bert")
    ids = tokenizer(" ".join(sentences(2000)), add_special_tokens=False, verbose=False)["input_ids"]
    dice = random.Random(0)
    texts = []
    for _ in range(1000):
        length, start = dice.randint(2, 254), dice.randrange(len(ids) - 256)
        texts.append(tokenizer.decode(ids[start : start + length]) or "a")
    table = pa.table({"id": [f"{i:04d}" for i in range(len(texts))], "text": texts})
    pq.write_table(table, folder / "texts.parquet")
    source = {"kind": "manifest", "path": "./texts.parquet", "columns": {"id": "id", "inline_text": "text"}}
    encoder = {"kind": "bert", "checkpoint": "./bert"}
    feature = {"modality": "text", "tokenizer": {"kind": "text", "max_length": 256}, "encoder": encoder}
    return _config(source, {"text": feature})


def media(folder: Path) -> dict[str, Any]:
    """All four: configs/media.yaml over the real media."""
    text = (ROOT / "configs" / "media.yaml").read_text().replace("../.demo", str(ROOT / ".demo"))
    config: dict[str, Any] = yaml.safe_load(text)
    exclude = ["bad/**", "pairs/**", "**/*.csv", "*.md"]
    return {**config, "source": {"kind": "files", "path": str(DATA), "exclude": exclude}}


REGIMES: dict[str, Callable[[Path], dict[str, Any]]] = {
    one.__name__: one for one in (images, clip, clip_bfloat16, clip_int8, video, audio, text, media)
}


def write(name: str, folder: Path) -> Path:
    """The regime's config, beside its checkpoint in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump(json.loads(json.dumps(REGIMES[name](folder)))))
    return path


def main() -> None:
    name, folder, *options = sys.argv[1:]
    path = write(name, Path(folder))
    command = [sys.executable, "-m", "jobs.cli", "benchmark", str(path), "--against", "reference", *options]
    sys.exit(subprocess.run(command, cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
