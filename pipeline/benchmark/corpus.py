"""The samples of a benchmark: some of the config's own, repeated until there are enough rows."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import sources
from pipeline.config import bound
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import ConfigError
from pipeline.core.schema import LISTING, ROLES
from pipeline.run import planning
from pipeline.sources.manifest import Columns, Config
from pipeline.storage.roots import AllowedRoots

_SEED = 0


def draw(config: PipelineConfig, most: int) -> pa.Table:
    """Draws at most ``most`` samples that hold what the features read from the whole corpus, always the same ones.

    Returns:
        A table of ``LISTING``, in random order.

    Raises:
        ConfigError: no sample holds what a feature reads.
    """
    source = sources.build(config.source)
    source.check("source")
    random = np.random.default_rng(_SEED)
    kept, lots = LISTING.empty_table(), np.zeros(0)
    for table in source.list():
        table = table.filter(pc.and_(pc.invert(table["forbidden"].fill_null(False)), pc.is_null(table["refused"])))
        table = planning.readable(table.select(LISTING.names), bound.wanted(config))
        kept, lots = pa.concat_tables([kept, table]), np.concatenate([lots, random.random(len(table))])
        first = np.argsort(lots)[:most]
        kept, lots = kept.take(pa.array(first)), lots[first]
    if not len(kept):
        raise ConfigError("source", "no sample holds what a feature reads", "a corpus of what the features read")
    return kept.combine_chunks()


def _scheme(uri: str) -> str:
    """Returns the scheme of a URI, ``file`` for a path."""
    head, colon, _ = uri.partition("://")
    return head.lower() if colon else "data" if uri.startswith("data:") else "file"


def repeated(samples: pa.Table, count: int, times: int, folder: str, allowed: AllowedRoots) -> Config:
    """Writes a manifest of ``count`` samples, each ``times`` times, into ``folder``, and returns its config.

    Args:
        samples: repeated if there are fewer than ``count``.
        allowed: the roots of the config, which are those of the manifest too.
    """
    ring = np.arange(count) % len(samples)
    chosen = samples.take(pa.array(np.tile(ring, times)))
    columns: dict[str, Any] = {"id": pa.array([f"{i:08d}" for i in range(len(chosen))])}
    columns |= {role: chosen[f"{role}_uri"] for role in ROLES} | {"inline_text": chosen["inline_text"]}
    path = os.path.join(folder, f"{count * times}.parquet")
    pq.write_table(pa.table(columns), path)
    uris = (uri for role in ROLES for uri in samples[f"{role}_uri"].drop_null().unique().to_pylist())
    roots = (*allowed.roots, *(["/"] if allowed.follow_symlinks else []))
    schemes = sorted({_scheme(uri) for uri in (*uris, *roots)})
    return Config(path=path, columns=Columns(**{name: name for name in columns}), schemes=tuple(schemes), roots=roots)
