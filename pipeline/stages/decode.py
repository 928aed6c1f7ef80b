"""Fetches, decodes and tokenizes: each row gains the arrays that its features' encoders read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import decoders, sources
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.arrow import Allocate, pack
from pipeline.core.media import MODALITIES
from pipeline.sandbox import StageContext
from pipeline.stages._media_cache import Cost, MediaCache, NoWords, part_of
from pipeline.stages.rows import Failure, add_failures, add_meter, failure, put
from pipeline.tokenizers.base import ModelInputs, Tokenizer

TIMES = "times"
"""Name of the input column with the times of tokens."""
_READ = (
    *("sample_id", "window", "start_s", "end_s", "inline_text", "text_timed", "text_from", "text_to", "carry_file"),
    *(f"{modality}_uri" for modality in MODALITIES),
)
"""Columns that decoding reads."""


def input_column(feature: str, name: str) -> str:
    """Returns the name of the column of one input array of a feature, between decoding and encoding."""
    return f"{feature}/{name}"


@dataclass
class Decoded:
    """A decoded row.

    Args:
        inputs: per feature what its encoder reads; None if the window has none, or if it failed.
        failures: the failures.
        cost: time and bytes that the row took.
    """

    inputs: dict[str, ModelInputs | None] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)


class DecodeStage:
    """Maps rows to rows with ``<feature>/<input>`` columns. One row in, one row out.

    Args:
        config: the checked config.
        features: the features to decode for.
        reused: names of features that are not computed for rows with a stored row of another version.
    """

    def __init__(
        self, config: PipelineConfig, features: tuple[BoundFeature, ...], reused: frozenset[str] = frozenset()
    ) -> None:
        self.config = config
        self.allowed_roots = sources.build(config.source).allowed_roots()
        self.features = features
        self.reused = reused
        self.tokenizers: dict[str, Tokenizer] = {}
        self.context = StageContext()

    def import_code(self) -> None:
        """Imports what `setup` and the first row need, by setting this copy of the stage up. Raises what it raises."""
        self.setup()

    def setup(self) -> None:
        """Loads the decoders and the tokenizers. Raises what they raise."""
        decoders.load({feature.modality for feature in self.features}, self.config.decoders)
        for feature in self.features:
            tokenizer = feature.tokenizer()
            tokenizer.setup()
            self.tokenizers[feature.name] = tokenizer

    def __call__(self, table: pa.Table) -> pa.Table:
        """Maps a table of `stages.rows.ROWS`. What a decoder or tokenizer raises is a failure of the row."""
        rows = list(self.each(table.select(_READ).to_pylist()))
        earlier = pc.list_value_length(table["failures"]).fill_null(0).to_pylist()
        expected = [sum(inputs is not None for inputs in row.inputs.values()) + len(row.failures) for row in rows]
        table = put(table, "cells", pa.array(np.add(earlier, expected), pa.int32()))
        for feature in self.features:
            table = _with_inputs(table, feature.name, [row.inputs[feature.name] for row in rows], self.context.allocate)
        for name in ("decode_s", "tokenize_s", "bytes_read", "requests", "retries", "decoded"):
            table = add_meter(table, name, [getattr(row.cost, name) for row in rows])
        return add_failures(table, [row.failures for row in rows])

    def each(self, rows: Iterable[dict[str, Any]]) -> Iterator[Decoded]:
        """Decodes rows one after the other.

        Args:
            rows: rows of `stages.rows.ROWS` as Python values; those of one sample follow each other.
        """
        with MediaCache(self.config, self.allowed_roots, self.context) as cache:
            for cache.row_number, row in enumerate(rows):
                decoded = Decoded()
                cache.cost = decoded.cost
                for feature in self.features:
                    uri = row[f"{feature.modality}_uri"]
                    inline = feature.modality == "text" and row["inline_text"] is not None
                    inputs = None
                    if (uri is not None or inline) and not self._is_skipped(feature, row):
                        inputs = self._prepare(feature, row, cache)
                    if isinstance(inputs, Failure):
                        decoded.failures.append(inputs)
                        inputs = None
                    decoded.inputs[feature.name] = inputs
                yield decoded

    def _is_skipped(self, feature: BoundFeature, row: dict[str, Any]) -> bool:
        """Returns whether nothing of a feature is computed in a row.

        This holds for reused features, and for features that only store tokens of untimed media: those are stored in
        window 0, and the other windows have no cell.
        """
        if feature.name in self.reused and row["carry_file"] is not None:
            return True
        only_tokens = not feature.emits("embedding") and not self.config.window.repeat_tokens
        return only_tokens and row["window"] > 0 and part_of(feature, row) is None

    def _prepare(self, feature: BoundFeature, row: dict[str, Any], cache: MediaCache) -> ModelInputs | Failure | None:
        """Decodes and tokenizes one feature of a row. Untimed media are decoded once per sample.

        Returns:
            the inputs, or the failure; None if the window has nothing of the modality.
        """
        tokenizer = self.tokenizers[feature.name]
        uri = row[f"{feature.modality}_uri"]
        try:
            media = cache.decode(tokenizer.request(), feature, row)
        except NoWords:
            return None
        except Exception as error:  # a decoder may raise anything; it costs only this cell
            return failure(feature.name, uri, "decode", error)
        started = time.perf_counter()
        try:
            key = ("prepared", feature.name, part_of(feature, row))
            task = cache.task("tokenize", feature, row)
            return cast(ModelInputs, cache.get_or_compute(key, task, lambda: tokenizer.tokenize(media)))
        except Exception as error:  # so may a tokenizer
            return failure(feature.name, uri, "tokenize", error)
        finally:
            cache.cost.tokenize_s += time.perf_counter() - started


def _with_inputs(table: pa.Table, feature: str, rows: list[ModelInputs | None], allocate: Allocate) -> pa.Table:
    """Returns ``table`` with one column per input array of a feature, and with the times of its tokens if any."""
    names = sorted({name for row in rows if row is not None for name in row.inputs})
    for name in names:
        arrays = [None if row is None else row.inputs.get(name) for row in rows]
        table = put(table, input_column(feature, name), pack(arrays, allocate))
    if any(row is not None and row.times_s is not None for row in rows):
        times = [None if row is None or row.times_s is None else np.asarray(row.times_s, np.float64) for row in rows]
        table = put(table, input_column(feature, TIMES), pack(times, allocate))
    return table
