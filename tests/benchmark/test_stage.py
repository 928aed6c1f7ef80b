"""The encoding stage and the calls of its models, replayed: the same rows, the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.benchmark import corpus, result, stage
from pipeline.config.features import bind
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from tests.benchmark.measured import caption, picture
from tests.stages.media_fixtures import AUDIO, IMAGE, bound, config, write_tone


def _encoding(folder: Path, features: dict[str, Any], count: int = 6) -> tuple[EncodeStage, pa.Table]:
    """The stage, set up, and a decoded table of so many rows."""
    settings = config(folder, features)
    own = bind(settings)
    probe, decode, encode = ProbeStage(settings, own), DecodeStage(settings, own), EncodeStage(settings, own)
    for one in (probe, decode, encode):
        one.setup()
    return encode, decode(probe(corpus.draw(settings, count)))


def _recorded(encode: EncodeStage, table: pa.Table) -> tuple[list[Any], pa.Table]:
    with stage._recorded(encode) as calls:
        done = encode(table)
    return calls, done


def _replayed(calls: list[Any]) -> list[Any]:
    with torch.inference_mode():
        return [module(*arguments, **options) for module, arguments, options in calls]


def _stored(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist(), np.float32)


def test_the_models_are_most_of_the_stage(demo_corpus: Path, models: Path) -> None:
    settings = config(
        demo_corpus / "pictures", {"p": picture(models), "c": caption(models)}, compute={"block_rows": 16}
    )
    pair = stage.measure(settings, bind(settings), corpus.draw(settings, 80), 1.0)
    assert pair.rows > 0
    assert pair.rows % (4 * 16) == 0  # whole rounds of four blocks
    assert 0.2 < pair.model_s / pair.stage_s < 1.2


def test_fewer_rows_than_a_block_are_one(demo_corpus: Path, models: Path) -> None:
    settings = config(demo_corpus / "pictures", {"p": picture(models)})
    pair = stage.measure(settings, bind(settings), corpus.draw(settings, 5), 0.0)
    assert pair.rows == 5
    assert min(pair.stage_s, pair.model_s) > 0


def test_a_picture_models_one_call_replays_to_what_is_stored(demo_corpus: Path, models: Path) -> None:
    encode, table = _encoding(demo_corpus / "pictures", {"p": picture(models, pool="cls")})
    calls, done = _recorded(encode, table)
    assert [module for module, _, _ in calls] == [encode.encoders["p"].model]  # type: ignore[attr-defined]
    (out,) = _replayed(calls)
    np.testing.assert_array_equal(out.last_hidden_state[:, 0].numpy(), _stored(done, "p_embedding"))
    (again,) = _replayed(calls)  # nothing was changed in place
    assert torch.equal(out.last_hidden_state, again.last_hidden_state)


def test_calls_of_a_models_parts_replay_to_what_is_stored(demo_corpus: Path, models: Path) -> None:
    """CLIP's towers and their projections are called one by one, never the whole model."""
    encode, table = _encoding(demo_corpus / "pictures", {"c": caption(models)})
    calls, done = _recorded(encode, table)
    assert [type(module).__name__ for module, _, _ in calls][-1] == "Linear"
    vectors = _replayed(calls)[-1].numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = _stored(done, "c_embedding")
    assert vectors.shape == stored.shape
    in_fresh_process = np.abs(vectors[:, None] - stored[None]).max(axis=2)  # texts are encoded in order of length
    np.testing.assert_allclose(in_fresh_process.min(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(in_fresh_process.min(axis=0), 0, atol=1e-6)


def test_a_model_that_two_features_share_is_recorded_once(demo_corpus: Path, models: Path) -> None:
    one, table = _encoding(demo_corpus / "pictures", {"p": picture(models)})
    calls, _ = _recorded(one, table)
    two, table = _encoding(demo_corpus / "pictures", {"p": picture(models), "q": picture(models)})
    both, _ = _recorded(two, table)
    assert len(both) == 2 * len(calls) == 2


def test_nothing_listens_afterwards(demo_corpus: Path, models: Path) -> None:
    encode, table = _encoding(demo_corpus / "pictures", {"p": picture(models)})
    calls, _ = _recorded(encode, table)
    encode(table)
    assert len(calls) == 1
    modules = list(encode.encoders["p"].model.modules())  # type: ignore[attr-defined]
    assert not [one for one in modules if one._forward_hooks or one._forward_pre_hooks]


def test_features_without_a_model_make_no_call(demo_corpus: Path) -> None:
    encode, table = _encoding(demo_corpus / "pictures", {"i": IMAGE})
    assert _recorded(encode, table)[0] == []


def test_calls_after_one_that_failed_are_outermost_too(
    demo_corpus: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that breaks is encoded again row by row."""
    encode, table = _encoding(demo_corpus / "pictures", {"p": picture(models)}, count=3)
    model: Any = encode.encoders["p"].model  # type: ignore[attr-defined]
    original = model.embeddings.forward

    def fragile(pixels: torch.Tensor, **options: Any) -> torch.Tensor:
        if len(pixels) > 1:
            raise RuntimeError("by design")
        made: torch.Tensor = original(pixels, **options)
        return made

    monkeypatch.setattr(model.embeddings, "forward", fragile)
    calls, done = _recorded(encode, table)
    assert done["failures"].to_pylist() == [[]] * 3
    assert [module for module, _, _ in calls] == [model] * 4


def test_a_call_that_fails_when_it_is_replayed_ends_nothing() -> None:
    made: list[int] = []

    class Broken(torch.nn.Module):
        def forward(self, number: int) -> None:
            made.append(number)
            raise RuntimeError("by design")

    stage._replay([(Broken(), (number,), {}) for number in range(2)])
    assert made == [0, 1]


def test_blocks_are_no_larger_than_a_runs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_tone(tmp_path / "in" / f"{name}.wav", 5.0)
    settings, features, samples = bound(config(tmp_path / "in", {"a": AUDIO}, window={"length_s": 1}))
    probe, decode = ProbeStage(settings, features), DecodeStage(settings, features)
    probe.setup()
    decode.setup()
    assert [len(block) for block in stage._decoded(probe, decode, samples, 4)] == [4, 4, 2]


def test_without_a_model_there_is_nothing_to_compare_with(demo_corpus: Path) -> None:
    settings = config(demo_corpus / "pictures", {"i": IMAGE})
    pair = stage.measure(settings, bind(settings), corpus.draw(settings, 5), 0.0)
    assert result.of_stage(pair)["model_rows_per_second"] is None
