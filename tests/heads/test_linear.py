"""The linear head equals torch's, and a file that does not fit is a config error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from pipeline.core.errors import ConfigError
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.heads import LinearConfig, build
from pipeline.heads.linear import save

SPEC = EncoderSpec(8, None, "clip:1", True, "float32", "clip", "")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_torch(tmp_path: Path, bias: bool, normalize: bool) -> None:
    layer = torch.nn.Linear(8, 3, bias=bias)
    path = str(tmp_path / "head.safetensors")
    save(path, layer.weight.detach().numpy(), "ours-1", layer.bias.detach().numpy() if bias else None, normalize)
    head = build(LinearConfig(kind="linear", weights=path), SPEC)
    head.check("features.a.head")
    head.setup()
    vectors = RNG.normal(size=(6, 8)).astype(np.float32)
    with torch.no_grad():
        reference = layer(torch.from_numpy(vectors))
        reference = torch.nn.functional.normalize(reference) if normalize else reference
    assert (head.dim, head.space, head.normalized) == (3, "ours-1", normalize)
    np.testing.assert_allclose(head.project([Encoded(pooled=v) for v in vectors]), reference.numpy(), atol=1e-5)


def _check(path: Path) -> None:
    build(LinearConfig(kind="linear", weights=str(path)), SPEC).check("features.a.head")


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    where = r"features\.a\.head\.weights: "
    path = tmp_path / "h.safetensors"
    with pytest.raises(ConfigError, match=where + "no file"):
        _check(path)
    os.mkfifo(tmp_path / "pipe")  # it would wait for a writer
    with pytest.raises(ConfigError, match=where + "no file"):
        _check(tmp_path / "pipe")
    save(str(path), np.zeros((3, 8)), "s")
    os.truncate(path, 1 << 40)
    with pytest.raises(ConfigError, match=where + ".* is nearly all hole"):
        _check(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ConfigError, match=where + ".* is no safetensors file"):
        _check(path)
    save_file({"w": np.zeros((3, 8), np.float32)}, str(path), metadata={"space": "s"})
    with pytest.raises(ConfigError, match=where + r"tensors w \[3, 8\]; it must hold `weight`"):
        _check(path)
    save_file({f"w{i}": np.zeros(1, np.float32) for i in range(5000)}, str(path), metadata={"space": "s"})
    with pytest.raises(ConfigError, match=where + r"tensors w0 \[1\], .*, …; it must hold `weight`") as caught:
        _check(path)
    assert len(str(caught.value)) < 500
    save_file({"weight": np.zeros((3, 8), np.float32)}, str(path))
    with pytest.raises(ConfigError, match=where + "no `space`"):
        _check(path)
    save(str(path), np.zeros((3, 7)), "s")
    with pytest.raises(ConfigError, match=where + r"weight \[3, 7\]; the encoder's vectors have 8"):
        _check(path)
    save(str(path), np.zeros((3, 8)), "s", np.zeros(4))
    with pytest.raises(ConfigError, match=where + r"bias \[4\]; \[3\]"):
        _check(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file as save_torch

    weight = torch.from_numpy(RNG.normal(size=(3, 8))).to(dtype)
    path = tmp_path / "h.safetensors"
    save_torch({"weight": weight}, str(path), metadata={"space": "s", "normalize": "false"})
    head = build(LinearConfig(kind="linear", weights=str(path)), SPEC)
    head.check("features.a.head")
    head.setup()
    vector = RNG.normal(size=8).astype(np.float32)
    np.testing.assert_allclose(head.project([Encoded(pooled=vector)])[0], weight.float().numpy() @ vector, rtol=1e-5)
    save_torch({"weight": torch.zeros(3, 8, dtype=torch.int32)}, str(path), metadata={"space": "s"})
    with pytest.raises(ConfigError, match=r"values of type I32; one of: F64, F32, F16, BF16"):
        _check(path)
