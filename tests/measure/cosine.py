"""How far an option changes vectors: `python -m tests.measure.cosine CONFIG --set features.NAME.encoder.dtype=bfloat16`

Decodes and encodes samples of the config's corpus with and without the options, in this process, and prints for each
feature the cosine between both, of pooled vectors and of token vectors one by one, and the CPU milliseconds a row.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from pipeline.benchmark import corpus
from pipeline.benchmark.baseline import Loops, rows_of
from pipeline.benchmark.fresh_process import one_thread
from pipeline.config.features import bind
from pipeline.config.loading import load


def encoded(settings: Any, samples: Any) -> tuple[dict[str, list[Any]], float, float]:
    """By feature what its encoder gives of each row, None where there is none; CPU seconds of both loops."""
    features = bind(settings)
    loops = Loops(settings, features)
    one_thread()
    given: dict[str, list[Any]] = {feature.name: [] for feature in features}
    decode_s = encode_s = 0.0
    rows = rows_of(loops.probe(samples), features)
    for start in range(0, len(rows), 32):
        since = time.process_time()
        block = list(loops.decode.each(rows[start : start + 32]))
        decode_s += time.process_time() - since
        since = time.process_time()
        for feature in features:
            inputs = [row.inputs[feature.name] for row in block]
            done = iter(loops.encode.encoders[feature.name].encode([one for one in inputs if one is not None], True))
            given[feature.name] += [None if one is None else next(done) for one in inputs]
        encode_s += time.process_time() - since
    return given, decode_s / len(rows), encode_s / len(rows)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[..., d] twice -> [N]"""
    one, other = one.reshape(-1, one.shape[-1]).astype(float), other.reshape(-1, other.shape[-1]).astype(float)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.sum(one * other, axis=1) / np.maximum(norms, 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--samples", type=int, default=256)
    options = parser.parse_args()
    plain = load(options.config)
    samples = corpus.draw(plain, options.samples)
    given = [encoded(settings, samples) for settings in (plain, load(options.config, options.set))]
    for which, (_, decode_s, encode_s) in zip(("without", "with"), given, strict=True):
        print(f"{which}: decoding {decode_s * 1e3:.2f} ms a row, encoding {encode_s * 1e3:.2f}")
    for name in given[0][0]:
        for part in ("pooled", "tokens"):
            both = [
                cosines(getattr(a, part), getattr(b, part))
                for a, b in zip(given[0][0][name], given[1][0][name], strict=True)
                if getattr(a, part, None) is not None and getattr(a, part).shape == getattr(b, part).shape
            ]
            only = sum((a is None) != (b is None) for a, b in zip(given[0][0][name], given[1][0][name], strict=True))
            if only:
                print(f"{name}: {only} rows have a vector on one side only")
            if both:
                every = np.concatenate(both)
                print(f"{name}, {part}: {len(every)} vectors, least {every.min():.5f}, mean {every.mean():.5f}")


if __name__ == "__main__":
    main()
