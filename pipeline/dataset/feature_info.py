"""FeatureInfo: the description of a stored feature in the footers, and the columns of a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.core.schema import STORED, column
from pipeline.core.strict_json import Value

PARTS = ("embedding", "tokens", "prefix_tokens", "token_ids", "grid", "times")
"""The parts of a feature. Each is stored in a column of its own."""
MAX_WIDTH = 1 << 28
"""Largest number of values in a vector."""
_MAX_TEXT = 1 << 20
"""Largest number of characters in a text."""
_REQUIRED_TEXTS = ("model", "space", "fingerprint")
_TEXTS = (
    *_REQUIRED_TEXTS,
    "model_type",
    "revision",
    "weights_sha256",
    "tokenizer",
    "head",
    "dtype",
    "embedding_dtype",
    "token_dtype",
    "prompt",
)


@dataclass(frozen=True)
class FeatureInfo:
    """The description of a feature in the footer of a file."""

    name: str
    modality: str
    emit: tuple[str, ...] = ()
    model: str = ""
    model_type: str | None = None
    revision: str | None = None
    weights_sha256: str | None = None
    tokenizer: str | None = None
    processor: Any = None
    head: str | None = None
    space: str = ""
    """Identity of the vector space of the embeddings. Vectors are comparable only within one space."""
    normalized: bool = False
    dim: int | None = None
    """Length of an embedding."""
    token_dim: int | None = None
    """Width of a token vector."""
    dtype: str | None = None
    """dtype of the computation. ``embedding_dtype`` and ``token_dtype`` are the dtypes of the columns."""
    embedding_dtype: str | None = None
    token_dtype: str | None = None
    prompt: str | None = None
    fingerprint: str = ""

    @classmethod
    def of(cls, name: str, values: Value) -> FeatureInfo:
        """Parses the part of a footer that describes a feature. Raises ``ConfigError`` for values of wrong types."""
        texts = {
            key: None if (one := values.member(key, None)).value is None else one.string(most=_MAX_TEXT)
            for key in _TEXTS
            if key in values.object()
        }
        present: dict[str, Any] = {
            key: value for key, value in texts.items() if value is not None or key not in _REQUIRED_TEXTS
        }
        return cls(
            name=name,
            modality=values.member("modality", "").string(),
            emit=tuple(one.string() for one in values.member("emit", []).items()),
            processor=values.member("processor", None).plain(),
            normalized=values.member("normalized", False).boolean(),
            dim=_width(values.member("dim", None)),
            token_dim=_width(values.member("token_dim", None)),
            **present,
        )


def _width(value: Value) -> int | None:
    """Parses the width of a vector; null: None."""
    return None if value.value is None else value.integer(least=1, most=MAX_WIDTH)


def feature_columns(feature: FeatureInfo) -> list[tuple[str, str]]:
    """Returns (name, part) of each column of a feature. Other columns with such names belong to the corpus."""
    emitted = {*feature.emit} or {*PARTS}
    if emitted & {"tokens", "token_ids"}:
        emitted |= {"grid", "times"}
    return [(column(feature.name, part), part) for part in PARTS if part in emitted]


def is_column_type(feature: FeatureInfo, part: str, kind: pa.DataType) -> bool:
    """Returns whether the column for ``part`` of a feature may have the type ``kind``."""
    if part in ("tokens", "prefix_tokens"):
        width = kind.value_type.list_size if pa.types.is_list(kind) and _is_vector(kind.value_type) else 0
        return 0 < width <= MAX_WIDTH and feature.token_dim in (None, width) and _is_stored(kind.value_type.value_type)
    if part == "embedding" and _is_vector(kind):
        return 0 < kind.list_size <= MAX_WIDTH and feature.dim in (None, kind.list_size) and _is_stored(kind.value_type)
    if part == "embedding":
        return pa.types.is_list(kind) and _is_stored(kind.value_type)
    return bool(kind == pa.list_(pa.float64() if part == "times" else pa.int32()))


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def _is_stored(kind: pa.DataType) -> bool:
    return kind in STORED.values()
