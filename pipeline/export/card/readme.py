"""README.md: a header in YAML that Hugging Face and `datasets` read, and what people read."""

from __future__ import annotations

from typing import Any

import yaml

from pipeline.core.errors import describe
from pipeline.core.terminal import size
from pipeline.export.card._markdown import code, plain, table
from pipeline.export.card.facts import Facts, FeatureFacts, text
from pipeline.export.libraries import library

NAME = "README.md"
_SPLIT = "train"
"""The name that `datasets` gives to rows without a split."""
_MODALITIES = {"text", "image", "video", "audio"}
_SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "10B<n<100B"),
    *("100B<n<1T", "n>1T"),
)
"""Names that Hugging Face has for numbers of rows: below 1000, and ten times as many each."""
_LOADING = """\
Plain Parquet. With `datasets`, from the folder of this file:

```python
from datasets import load_dataset

rows = load_dataset("FOLDER", split="{split}")
```

`croissant.json` describes the same rows for `mlcroissant`. A null is a modality that a row does not have, or a feature
that failed. Only vectors of the same space can be compared.
"""
_LICENSE = """\
Not stated. Whoever publishes this dataset adds `license:` to the header of this file and `"license"` to
`croissant.json`, and sees to the licences of the media and of the models.
"""


def render(facts: Facts) -> tuple[str, list[str]]:
    """Returns the file, and warnings."""
    header, warnings = _header(facts)
    dumped = yaml.safe_dump(header, sort_keys=False, allow_unicode=False, width=1 << 30)
    parts = [
        f"---\n{dumped}---\n",
        f"# {plain(facts.name)}\n",
        _summary(facts),
        "## Features\n",
        _features(facts),
        "## Preprocessing\n",
        _preprocessing(facts),
        "## Columns\n",
        table(
            ["column", "type", "meaning"],
            (
                [code(text(field.name)), code(text(field.type)), plain(_meaning(facts, field.name))]
                for field in facts.schema
            ),
        ),
        "## Reading\n",
        _LOADING.format(split=_SPLIT),
        "## License\n",
        _LICENSE,
    ]
    return "\n".join(parts), warnings


def _header(facts: Facts) -> tuple[dict[str, Any], list[str]]:
    """Returns the header, and warnings."""
    header: dict[str, Any] = {
        "pretty_name": facts.name,
        "tags": ["tessera", "embeddings", *sorted({one.modality for one in facts.features} & _MODALITIES)],
        "size_categories": [_size_category(facts.rows)],
    }
    if not facts.shards:
        return header, ["there are no rows, so that the header names no files"]
    header["configs"] = [{"config_name": "default", "data_files": [{"split": _SPLIT, "path": facts.shard_paths()}]}]
    datasets = library("datasets")
    try:
        features = datasets.Features.from_arrow_schema(facts.schema)
    except (ValueError, TypeError, NotImplementedError) as error:
        return header, [f"`datasets` has no type for a column, so that the header names no columns ({describe(error)})"]
    splits = datasets.SplitDict()
    splits.add(datasets.SplitInfo(name=_SPLIT, num_bytes=facts.bytes, num_examples=facts.rows))
    info = datasets.DatasetInfo(features=features, splits=splits, download_size=facts.bytes, dataset_size=facts.bytes)
    data = library("huggingface_hub").DatasetCardData()
    library("datasets.info").DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    header["dataset_info"] = data.to_dict()["dataset_info"]
    return header, []


def _size_category(rows: int) -> str:
    """Returns the name that Hugging Face has for a number of rows."""
    return _SIZES[max(0, min(len(str(rows)) - 3, len(_SIZES) - 1))]


def _summary(facts: Facts) -> str:
    """Returns a table of the snapshot."""
    rows = {
        "version, snapshot": code(f"{facts.version}, {facts.snapshot}"),
        "made": code(facts.created),
        "run": code(facts.run_id),
        "rows": str(facts.rows),
        "files": f"{len(facts.shards)}, {size(facts.bytes)}",
        "failed features of rows": str(facts.failures),
        "windows": code(facts.window),
        "computed with": code(facts.versions),
    }
    found = table(["", ""], ([name, value] for name, value in rows.items() if value))
    return f"Embeddings and token sequences that Tessera extracted from media; a row is one window of time.\n\n{found}"


def _features(facts: Facts) -> str:
    """Returns a table of the features and their models."""
    columns = ["feature", "modality", "model", "revision", "sha256 of the weights", "embedding", "tokens", "space"]
    return table(columns, ([*_model(one), *_vectors(one), _space(one)] for one in facts.features))


def _model(feature: FeatureFacts) -> list[str]:
    kind = f" ({plain(feature.model_type)})" if feature.model_type else ""
    digests = [code(feature.revision) or "–", code(feature.weights_sha256) or "–"]
    return [code(feature.name), plain(feature.modality), (code(feature.model) or "–") + kind, *digests]


def _vectors(feature: FeatureFacts) -> list[str]:
    """Returns the width and dtype of embeddings and of tokens."""
    pairs = [(feature.dim, feature.embedding_dtype), (feature.token_dim, feature.token_dtype)]
    return [f"{width or ''} {plain(dtype)}".strip() if dtype else "–" for width, dtype in pairs]


def _space(feature: FeatureFacts) -> str:
    found = code(feature.space) or "–"
    return f"{found}, normalized" if feature.normalized else found


def _preprocessing(facts: Facts) -> str:
    """Returns a table of what happens before and after the model."""
    names = list(dict.fromkeys(name for one in facts.features for name in one.preprocessing))
    rows = (
        [code(one.name), *(code(one.preprocessing.get(name, "")) or "–" for name in names)] for one in facts.features
    )
    return table(["feature", *names], rows)


def _meaning(facts: Facts, column: str) -> str:
    return facts.meanings.get(column, "copied from the corpus")
