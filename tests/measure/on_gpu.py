"""The encoding stage on a GPU against its models alone: `python -m tests.measure.on_gpu FOLDER [CASE...]`.

Checkpoints of true size with seeded weights are written into FOLDER; pictures are the real ones, texts those of the
regime (see tests/measure/regimes.py). Needs no Ray. For each case: rows/s of the stage and of the models' own calls
replayed on tensors that are on the device already, their ratio, the part of the time in which the device computed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import config as configs
from pipeline.benchmark import corpus, stage
from pipeline.benchmark.result import of_stage
from pipeline.config.features import bind
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from tests.measure import regimes

_LARGE: dict[str, Any] = {
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "patch_size": 14}
    | {"num_attention_heads": 16},
    "text_config": {"num_hidden_layers": 2},
    "projection_dim": 768,
}
"""CLIP ViT-L/14, of whose text tower nothing runs."""
_BUDGET_S = 3.0


def _pictures(folder: Path, size: str, block_rows: int | None = None, **options: Any) -> dict[str, Any]:
    """CLIP over pictures; ``tokens`` among the options emits them too."""
    emit = ["embedding", "tokens"] if options.pop("tokens", False) else ["embedding"]
    own = folder / size
    own.mkdir(exist_ok=True)
    if not (own / "clip" / "config.json").exists():
        _clip(own, _LARGE if size == "large" else {"text_config": {"num_hidden_layers": 2}})
    encoder = {"kind": "clip", "checkpoint": str(own / "clip"), **options}
    feature = {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": encoder, "emit": emit}
    source = {"kind": "files", "path": str(regimes.DATA / "images")}
    compute = {"block_rows": block_rows} if block_rows else {}
    return {"source": source, "output": {"path": "./dataset"}, "features": {"image": feature}, "compute": compute}


def _clip(folder: Path, model: dict[str, Any]) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from pipeline.demo.checkpoints._seeded import save
    from pipeline.demo.checkpoints._vision_tokenizers import clip_tokenizer

    save(CLIPModel, CLIPConfig(**model), str(folder / "clip"))
    CLIPProcessor(CLIPImageProcessor(), clip_tokenizer()).save_pretrained(folder / "clip")


def _texts(folder: Path, **options: Any) -> dict[str, Any]:
    made = regimes.text(folder)
    made["source"]["path"] = str(folder / "texts.parquet")
    encoder = made["features"]["text"]["encoder"]
    encoder |= {"checkpoint": str(folder / "bert"), **options}
    return made


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "base float32 32": (_pictures, {"size": "base", "batch_size": 32}),
    "base float32 128": (_pictures, {"size": "base", "batch_size": 128}),
    "base bfloat16 32": (_pictures, {"size": "base", "dtype": "bfloat16", "batch_size": 32}),
    "base bfloat16 128": (_pictures, {"size": "base", "dtype": "bfloat16", "batch_size": 128}),
    "base bfloat16 512": (_pictures, {"size": "base", "dtype": "bfloat16", "batch_size": 512, "block_rows": 512}),
    "base bfloat16 128 tokens": (_pictures, {"size": "base", "dtype": "bfloat16", "batch_size": 128, "tokens": True}),
    "base bfloat16 128 compiled": (
        _pictures,
        {"size": "base", "dtype": "bfloat16", "batch_size": 128, "device": "cuda", "compile": True},
    ),
    "large float32 32": (_pictures, {"size": "large", "batch_size": 32}),
    "large bfloat16 32": (_pictures, {"size": "large", "dtype": "bfloat16", "batch_size": 32}),
    "large bfloat16 128": (_pictures, {"size": "large", "dtype": "bfloat16", "batch_size": 128}),
    "large bfloat16 128 tokens": (_pictures, {"size": "large", "dtype": "bfloat16", "batch_size": 128, "tokens": True}),
    "large bfloat16 128 compiled": (
        _pictures,
        {"size": "large", "dtype": "bfloat16", "batch_size": 128, "device": "cuda", "compile": True},
    ),
    "text float32 32": (_texts, {"batch_size": 32}),
    "text bfloat16 128": (_texts, {"dtype": "bfloat16", "batch_size": 128}),
}


def main() -> None:
    folder, wanted = Path(sys.argv[1]).resolve(), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    print(torch.cuda.get_device_name(), torch.__version__)
    vectors: dict[str, np.ndarray] = {}
    for name, (make, options) in CASES.items():
        if wanted and not any(one in name for one in wanted):
            continue
        started = time.perf_counter()
        path = folder / "config.yaml"
        path.write_text(json.dumps(make(folder, **options)))
        config = configs.here(configs.load(str(path)))
        features = bind(config)
        samples = corpus.draw(config, 1024)
        reported = of_stage(stage.measure(config, features, samples, _BUDGET_S))
        print(f"{name}: {reported}, {time.perf_counter() - started:.0f} s in all", flush=True)
        torch.cuda.empty_cache()
        vectors[name] = _vectors(config, features, samples.slice(0, 128))
    for size in ("base", "large"):
        one = vectors.get(f"{size} float32 32")
        for how in ("bfloat16 128", "bfloat16 128 compiled"):
            other = vectors.get(f"{size} {how}")
            if one is not None and other is not None:
                cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
                print(f"{size} {how} against float32: least cosine {cosines.min():.6f}, mean {cosines.mean():.6f}")


def _vectors(config: Any, features: Any, samples: Any) -> np.ndarray:
    """[n, dim] pooled vectors."""
    stages = ProbeStage(config, features), DecodeStage(config, features), EncodeStage(config, features)
    table = samples
    for one in stages:
        one.setup()
        table = one(table)
    column = table[f"{features[0].name}_embedding"].drop_null()
    return np.array(column.to_pylist(), np.float32)


if __name__ == "__main__":
    main()
