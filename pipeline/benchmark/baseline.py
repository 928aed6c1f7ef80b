"""The bare loops: decoding and encoding in one process with one thread, without Ray, tables or other processes."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.benchmark.fresh_process import on_gpu, one_thread
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import TesseraError
from pipeline.core.system import allocator
from pipeline.stages.decode import Decoded, DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage


@dataclass
class Bare:
    """What both loops took for ``rows`` rows, in CPU seconds of one thread."""

    rows: int = 0
    rows_per_sample: float = 1.0
    probe_s: float = 0.0
    """Opening media and cutting windows. Not a part of the ideal."""
    decode_s: float = 0.0
    encode_s: float = 0.0
    """With a GPU: CPU seconds of the host."""
    device_s: float | None = None
    """Wall seconds of encoding with a GPU, one call at a time; a run makes three at the same time. None: no GPU."""
    encode_by_feature: dict[str, float] = field(default_factory=dict)
    failed: int = 0
    """Cells (features of rows) that could not be decoded or encoded."""


class Loops:
    """The stages of a config, set up in this process."""

    def __init__(self, config: PipelineConfig, features: tuple[BoundFeature, ...]) -> None:
        self.config, self.features = config, features
        self.probe, self.decode = ProbeStage(config, features), DecodeStage(config, features)
        self.encode = EncodeStage(config, features)
        for stage in (self.probe, self.decode, self.encode):
            stage.setup()
        self.gpu = on_gpu(config)
        self.took = Bare(device_s=0.0 if self.gpu else None)
        self.cut = np.zeros(2)  # samples, rows

    def rows(self, samples: pa.Table) -> Iterator[list[dict[str, Any]]]:
        """Yields blocks of ``block_rows`` rows from ``samples``, without end."""
        rows = itertools.chain.from_iterable(self._cut(samples, i) for i in itertools.count())
        while True:
            yield list(itertools.islice(rows, self.config.block_rows))

    def _cut(self, samples: pa.Table, number: int) -> list[dict[str, Any]]:
        """Returns the rows of sample ``number``, counted through repetitions, each with ids of its own."""
        if number == len(samples) and not self.cut[1]:
            raise TesseraError("none of the samples drawn holds what a feature reads")
        started = time.process_time()
        rows = rows_of(self.probe(samples.slice(number % len(samples), 1)), self.features)
        self.took.probe_s += time.process_time() - started
        self.cut += (1, len(rows))
        return [{**row, "sample_id": f"{number}/{row['sample_id']}"} for row in rows]

    def decoded(self, block: list[dict[str, Any]]) -> list[Decoded]:
        """Decodes a block, and adds what it took."""
        started = time.process_time()
        rows = list(self.decode.each(block))
        self.took.decode_s += time.process_time() - started
        self.took.rows += len(rows)
        self.took.rows_per_sample = self.cut[1] / self.cut[0]
        self.took.failed += sum(len(row.failures) for row in rows)
        return rows

    def encoded(self, block: list[Decoded]) -> None:
        """Encodes a block, and adds what it took. Inputs that several windows share are encoded once, as in a run."""
        for feature in self.features:
            once = {id(inputs): inputs for row in block if (inputs := row.inputs[feature.name]) is not None}
            if not once:
                continue
            started, since = time.process_time(), time.perf_counter()
            want_tokens = feature.emits("tokens", "prefix_tokens", "token_ids")
            try:
                done = self.encode.encoders[feature.name].encode(list(once.values()), want_tokens)
                good = [one for one in done if not isinstance(one, Exception)]
                self.took.failed += len(done) - len(good)
                if good and feature.emits("embedding"):
                    self.encode.heads[feature.name].project(good)
            except Exception:  # only a run finds the row that failed
                self.took.failed += len(once)
            if self.gpu:
                import torch

                torch.cuda.synchronize()
            spent, took = time.process_time() - started, self.took
            took.encode_s += spent
            took.encode_by_feature[feature.name] = took.encode_by_feature.get(feature.name, 0.0) + spent
            if took.device_s is not None:
                took.device_s += time.perf_counter() - since


def rows_of(probed: pa.Table, features: tuple[BoundFeature, ...]) -> list[dict[str, Any]]:
    """Returns the rows of a probed table that a run counts: rows that hold what a feature reads, or have failed."""
    read = {feature.modality for feature in features}

    def counts(row: dict[str, Any]) -> bool:
        here = any(row[f"{modality}_uri"] is not None for modality in read)
        return bool(row["failures"]) or here or ("text" in read and row["inline_text"] is not None)

    return [row for row in probed.to_pylist() if row["window"] >= 0 and counts(row)]


def measure(config: PipelineConfig, features: tuple[BoundFeature, ...], samples: pa.Table, budget_s: float) -> Bare:
    """Runs both loops, one block of rows at a time, for about ``budget_s`` seconds. A first block does not count."""
    allocator.keep_pages()
    loops = Loops(config, features)
    one_thread()
    gc.collect()
    gc.freeze()  # as in a run's processes
    blocks = loops.rows(samples)
    loops.encoded(loops.decoded(next(blocks)))
    loops.took = Bare(device_s=0.0 if loops.gpu else None)
    started = time.perf_counter()
    while loops.took.rows == 0 or time.perf_counter() - started < budget_s:
        loops.encoded(loops.decoded(next(blocks)))
    return loops.took
