"""The native head gives the encoder's vector, normalised as its space says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.heads import NativeConfig, build

SPEC = EncoderSpec(8, None, "clip:1", True, "float32", "clip", "")


@pytest.mark.parametrize(
    ("normalize", "by_space", "expected"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_normalisation(normalize: bool | None, by_space: bool, expected: bool) -> None:
    spec = EncoderSpec(8, None, "s", by_space, "float32", "m", "")
    head = build(NativeConfig(normalize=normalize), spec)
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32) * 100
    got = head.project([Encoded(pooled=v) for v in vectors])
    reference = torch.nn.functional.normalize(torch.from_numpy(vectors)).numpy() if expected else vectors
    assert (head.normalized, head.dim, head.space) == (expected, 8, "s")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference, atol=1e-6)


def test_a_zero_vector_stays_zero() -> None:
    got = build(NativeConfig(), SPEC).project([Encoded(pooled=np.zeros(8, np.float32))])
    np.testing.assert_array_equal(got, np.zeros((1, 8)))
