"""If memory runs out, the micro-batch is halved and grows again later; a row that does not fit fails by itself; no
value changes. On the host with a real limit of the address space; for CUDA with a simulated error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import SampleError, out_of_memory
from pipeline.core.media import Frames
from pipeline.encoders._shared.adaptive_batch import AdaptiveBatchSize
from pipeline.encoders.base import Encoded
from pipeline.encoders.bert import BertConfig, BertEncoder
from pipeline.encoders.clip import ClipConfig, ClipEncoder
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.frame import FrameConfig, FrameTokenizer
from tests.encoders.sound_fixtures import assert_close, build_encoder, checkpoint, token_inputs
from tests.support import ROOT

WORDS = ["a", "small", "dog", "runs", "over", "the", "green", "hill", "and", "back", "again", "while", "it", "rains"]


def test_share() -> None:
    fit = AdaptiveBatchSize()
    assert (fit.scale(32), fit.scale(1)) == (32, 1)
    for _ in range(3):
        fit.record_out_of_memory()
        fit.halve()
    assert (fit.scale(32), fit.scale(3)) == (4, 1)
    for expected in (8, 16, 32, 32):
        for _ in range(8):
            fit.record_success()
        assert fit.scale(32) == expected
    fit.record_out_of_memory()
    assert fit.patience == 8  # not too early: it had gone well at this size
    for patience in (16, 32, 64, 128, 256, 256):
        fit.share = 0.5
        for _ in range(fit.patience):
            fit.record_success()
        assert fit.share == 1
        fit.record_out_of_memory()
        assert fit.patience == patience


def test_what_counts_as_out_of_memory() -> None:
    import torch

    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)
    with pytest.raises(MemoryError) as numpy_s:
        np.empty(1 << 55)
    assert out_of_memory(numpy_s.value)
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert not out_of_memory(ValueError("out of memory"))


class Device:
    """Simulates a device with memory for ``holds`` units. A batch takes the sum over its rows or pictures."""

    def __init__(self, encoder: Any, name: str, holds: int, takes: Callable[[Any], int]) -> None:
        import torch

        self.holds, self.sizes, self.emptied = holds, list[int](), 0
        original = getattr(encoder, name)

        def limited(items: Sequence[Any], *more: Any) -> Any:
            self.sizes.append(len(items))
            if sum(map(takes, items)) > self.holds:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return original(items, *more)

        setattr(encoder, name, limited)


def _rows(count: int) -> list[ModelInputs]:
    return token_inputs([" ".join(WORDS[i % 7 :] * (1 + i % 3)) for i in range(count)], checkpoint("bert"))


def _equal(a: Sequence[Encoded | SampleError], b: Sequence[Encoded | SampleError]) -> None:
    for one, other in zip(a, b, strict=True):
        assert isinstance(one, Encoded)
        assert isinstance(other, Encoded)
        assert_close(one.pooled, other.pooled, "pooled")
        assert_close(one.tokens, other.tokens, "tokens")


def test_the_micro_batch_is_halved_and_grows_again() -> None:
    rows = _rows(30)
    whole = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", batch_size=16).encode(rows, True)
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", batch_size=16)
    encoder.saturating_units = None  # as on a GPU
    device = Device(encoder, "forward", 5, lambda row: 1)
    _equal(encoder.encode(rows, True), whole)
    assert device.sizes == [16, 8, 4, 4, 4, 4, 4, 4, 4, 2]
    device.holds = 100  # others have left the device
    for _ in range(10):
        encoder.encode(rows, False)
    assert device.sizes[-2:] == [16, 14]
    _equal(encoder.encode(rows, True), whole)


def test_a_batch_that_never_fits_is_seldom_tried() -> None:
    rows = [_rows(1)[0]] * 16
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", batch_size=16)
    device = Device(encoder, "forward", 8, lambda row: 1)
    for _ in range(60):
        encoder.encode(rows, False)
    assert 2 <= sum(size > 8 for size in device.sizes) <= 6


def test_a_row_that_does_not_fit_alone_fails_alone() -> None:
    rows = _rows(12)
    whole = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text").encode(rows, True)
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text")
    Device(encoder, "forward", 12, lambda row: 100 if row is rows[5] else 1)
    got = encoder.encode(rows, True)
    assert isinstance(got[5], SampleError)
    assert got[5].kind == "memory"
    assert got[5].message.startswith("OutOfMemoryError: CUDA out of memory")
    _equal([*got[:5], *got[6:]], [*whole[:5], *whole[6:]])


def test_a_budget_of_tokens_shrinks_with_the_rows() -> None:
    rows = _rows(24)
    whole = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text").encode(rows, True)
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text", batch_size=1000, batch_tokens=400)
    device = Device(encoder, "forward", 150, lambda row: len(row.inputs["input_ids"]))
    _equal(encoder.encode(rows, True), whole)
    assert max(device.sizes[len(device.sizes) // 2 :]) > 1


def test_a_video_that_does_not_fit_at_once_is_encoded_frame_by_frame(models: Path) -> None:
    from pipeline.checkpoint.checkpoint import Checkpoint

    where = Checkpoint(str(models / "clip"), "clip", None, "features.x.encoder.checkpoint")
    tokenizer = FrameTokenizer(FrameConfig(kind="frame"), where)
    tokenizer.setup()
    draw = np.random.default_rng(0)
    rows = [
        tokenizer.tokenize(Frames(draw.integers(0, 256, (count, 40, 50, 3), np.uint8), np.arange(count) / 4.0))
        for count in (7, 20, 3)
    ]

    def made() -> ClipEncoder:
        encoder = ClipEncoder(
            ClipConfig(kind="clip", checkpoint=where.path, batch_size=16), where, "video", FrameConfig(kind="frame")
        )
        encoder.setup()
        return encoder

    whole = made().encode(rows, True)
    encoder = made()
    device = Device(encoder, "forward_images", 5, lambda picture: 1)
    _equal(encoder.encode(rows, True), whole)
    assert max(size for size in device.sizes if size <= 5) > 1
    encoder = made()
    Device(encoder, "forward_images", 0, lambda picture: 1)
    assert [one.kind for one in encoder.encode(rows, True) if isinstance(one, SampleError)] == ["memory"] * 3


def test_the_cache_of_a_cuda_device_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text")
    Device(encoder, "forward", 4, lambda row: 1)
    encoder.encode(_rows(8), False)
    assert not emptied
    encoder.device = type("Cuda", (), {"type": "cuda"})()
    monkeypatch.setattr(encoder, "forward", lambda rows, want: _cuda(rows))
    assert all(isinstance(one, SampleError) for one in encoder.encode(_rows(2), False))
    assert emptied


def _cuda(rows: Sequence[ModelInputs]) -> list[Encoded]:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_another_error_is_none_of_memory() -> None:
    encoder = build_encoder(BertEncoder, BertConfig, checkpoint("bert"), "text")
    encoder.forward = lambda rows, want: [][0]
    with pytest.raises(IndexError):
        encoder.encode(_rows(2), False)
    assert encoder.adaptive_batch.share == 1


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_the_host_s_memory_runs_out_for_real(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.encoders._shared.programs.run_out_of_host_memory", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("halved to")
