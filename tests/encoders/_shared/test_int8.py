"""int8 against the same arithmetic in exact integers, and every kind of encoder in int8 against itself in float32."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.benchmark.baseline import Loops
from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.config.features import bind
from pipeline.core.errors import ConfigError
from pipeline.core.media import Image
from pipeline.encoders._shared.int8 import Int8Linear, is_supported, quantise
from pipeline.encoders.siglip import SiglipConfig, SiglipEncoder
from pipeline.encoders.vit import VitConfig, VitEncoder
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.patch import PatchConfig, PatchTokenizer
from tests.benchmark.measured import caption
from tests.encoders.vision_fixtures import tokenized
from tests.stages.media_fixtures import bound, config
from tests.support import ROOT

TEXT, PATCH, SOUND = {"kind": "text"}, {"kind": "patch"}, {"kind": "audio_frame"}
TUBELET, FRAMES = {"kind": "tubelet"}, {"kind": "frame", "sampling": {"kind": "uniform", "frames": 4}}
EVERY = [
    ("vit", "vit", "image", PATCH),
    ("vit", "dinov2", "video", FRAMES),
    ("clip", "clip", "image", PATCH),
    ("clip", "clip", "text", TEXT),
    ("siglip", "siglip", "image", PATCH),
    ("siglip", "siglip", "text", TEXT),
    ("embedding_gemma2", "embedding_gemma2", "image", PATCH),
    ("embedding_gemma2", "embedding_gemma2", "text", TEXT),
    ("embedding_gemma2", "embedding_gemma2", "audio", SOUND),
    ("bert", "bert", "text", TEXT),
    ("whisper", "whisper", "audio", SOUND),
    ("ast", "ast", "audio", SOUND),
    ("clap", "clap", "audio", SOUND),
    ("clap", "clap", "text", TEXT),
    ("wav2vec2", "wav2vec2", "audio", SOUND),
    ("videomae", "videomae", "video", TUBELET),
    ("vjepa2", "vjepa2", "video", TUBELET),
]


@pytest.mark.vnni
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 24), (3, 300, 24), (0, 24), (2, 0, 24)])
def test_a_layer_is_its_integer_product(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(24, 40, bias=bias)
    values = torch.randn(shape) * torch.rand(*shape[:-1], 1) * 100
    if values.numel():
        values.view(-1, 24)[0] = 0
    weight, rows = linear.weight.detach().numpy(), values.numpy().reshape(-1, 24)
    w_scale = np.abs(weight).max(1, keepdims=True) / np.float32(127)
    scale = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-12) / np.float32(127)
    product = np.rint(rows / scale).astype(np.int64) @ np.rint(weight / w_scale).astype(np.int64).T
    expected = product * w_scale[:, 0].astype(np.float64) * scale
    if bias:
        expected += linear.bias.detach().numpy()
    with torch.inference_mode():
        ours = Int8Linear(linear)(values)
    assert ours.shape == (*shape[:-1], 40)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy().reshape(-1, 40), expected, rtol=1e-5, atol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(2)
    layer = Int8Linear(nn.Linear(64, 48))
    rows = torch.randn(700, 64)
    rows[300] *= 1e6
    with torch.inference_mode():
        together = layer(rows)
        assert all(torch.equal(layer(rows[i : i + 1])[0], together[i]) for i in (0, 255, 256, 300, 699))


def test_plain_linear_layers_are_replaced_and_nothing_else() -> None:
    attention = nn.MultiheadAttention(8, 2)
    model = quantise(nn.Sequential(nn.Linear(8, 8), attention, nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2))))
    kinds = [type(one).__name__ for one in model.modules()]
    assert kinds.count("Int8Linear") == 2
    assert "NonDynamicallyQuantizableLinear" in kinds
    assert sum(one.dtype == torch.int8 for one in model.buffers()) == 2


@pytest.fixture(scope="module")
def clip_of_all(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A picture, a sound, a film and a text, one of each."""
    folder = tmp_path_factory.mktemp("all")
    chosen = (
        next((data / "images").glob("*.jpg")),
        data / "audio" / "ljspeech__LJ001-0003.flac",
        next((data / "videos").glob("*.mp4")),
        next((data / "text").glob("*.txt")),
    )
    for number, file in enumerate(chosen):
        shutil.copy(file, folder / f"{number}{file.suffix}")
    return folder


@pytest.mark.vnni
@pytest.mark.parametrize(("kind", "name", "modality", "tokenizer"), EVERY)
def test_every_encoder_stays_near_float32(
    kind: str, name: str, modality: str, tokenizer: dict[str, Any], clip_of_all: Path, models: Path
) -> None:
    def feature(**options: Any) -> dict[str, Any]:
        encoder = {"kind": kind, "checkpoint": str(models / name), **options}
        return {"modality": modality, "tokenizer": tokenizer, "encoder": encoder}

    features = {"exact": feature(), "rough": feature(dtype="int8", device="cpu")}
    settings = config(clip_of_all, features, window={"length_s": 5})
    _, features_bound, samples = bound(settings)
    loops = Loops(settings, features_bound)
    rows = list(loops.decode.each(loops.probe(samples).to_pylist()))
    inputs: list[ModelInputs] = [one for row in rows if (one := row.inputs["exact"]) is not None]
    assert inputs
    exact, rough = (loops.encode.encoders[which].encode(inputs, True) for which in ("exact", "rough"))
    assert any(isinstance(one, Int8Linear) for one in loops.encode.encoders["rough"].model.modules())
    for a, b in zip(exact, rough, strict=True):
        pairs = [(a.pooled, b.pooled), (a.tokens, b.tokens)]
        for one, other in [pair for pair in pairs if pair[0] is not None and pair[0].size]:
            cosine = np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other)
            assert cosine > 0.99, cosine
            assert not np.array_equal(one, other)


@pytest.mark.vnni
@pytest.mark.parametrize("name", ["siglip2", "dinov2_with_registers", "dinov3"])
def test_pictures_that_are_cut_into_patches_before(
    name: str, checkpoints: dict[str, Checkpoint], pictures: list[np.ndarray]
) -> None:
    """SigLIP 2 brings pixels to the dtype of its first linear layer's weight."""
    made = SiglipEncoder if name == "siglip2" else VitEncoder
    kind = SiglipConfig if name == "siglip2" else VitConfig
    rows = tokenized(PatchTokenizer(PatchConfig(), checkpoints[name]), [Image(p) for p in pictures])
    done = []
    for options in ({}, {"dtype": "int8", "device": "cpu"}):
        encoder = made(kind(checkpoint=checkpoints[name].path, **options), checkpoints[name], "image", PatchConfig())
        encoder.check("features.f")
        encoder.setup()
        done.append(encoder.encode(rows, True))
    for a, b in zip(*done, strict=True):
        assert np.sum(a.pooled * b.pooled) / np.linalg.norm(a.pooled) / np.linalg.norm(b.pooled) > 0.99
        assert not np.array_equal(a.pooled, b.pooled)


def test_a_layers_weight_is_float32() -> None:
    linear = nn.Linear(24, 40)
    weight = Int8Linear(linear).weight
    assert weight.dtype == torch.float32
    assert (weight - linear.weight).abs().max() <= linear.weight.abs().max() / 127


def _vit(checkpoints: dict[str, Checkpoint]) -> VitEncoder:
    config = VitConfig(checkpoint=checkpoints["vit"].path, dtype="int8", device="cpu")
    return VitEncoder(config, checkpoints["vit"], "image", PatchConfig())


REFUSAL = r"features\.f\.encoder\.dtype: 'int8' on a CPU without AVX512-VNNI; float32 there"


def test_a_cpu_without_the_instructions_is_refused(
    checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(ConfigError, match=REFUSAL):
        _vit(checkpoints).setup()


def test_instructions_that_onednn_may_not_use_count_as_absent(checkpoints: dict[str, Checkpoint]) -> None:
    """In a process of its own: oneDNN reads the variable once."""
    others = {name: value for name, value in os.environ.items() if not name.endswith("_MAX_CPU_ISA")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.encoders._shared.programs.set_up_pickled_encoder"],
        input=pickle.dumps(_vit(checkpoints)),
        env={**others, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert re.match(REFUSAL, done.stdout.decode()), done


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux lists the CPU's instructions in /proc")
def test_the_detection_is_what_the_kernel_lists(pytestconfig: pytest.Config) -> None:
    flags = re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), flags=re.M)
    listed = bool(flags) and {"avx512_vnni", "avx512bw", "avx512vl", "avx512dq"} <= set(flags[0].split())
    assert is_supported() == (listed and pytestconfig.getoption("--cpu") is None)


def test_a_gpu_takes_none(demo_corpus: Path, models: Path) -> None:
    made = caption(models)
    made["encoder"] = {**made["encoder"], "dtype": "int8", "device": "auto"}
    with pytest.raises(ConfigError, match=r"features\.c\.encoder\.dtype: 'int8' with device: auto.*device: cpu"):
        bind(config(demo_corpus, {"c": made}))
