"""The footer of the newest file of a snapshot: the lineage, the features and the checked schema of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa

from pipeline.core import strict_json
from pipeline.core.errors import ConfigError
from pipeline.core.schema import FIXED
from pipeline.core.strict_json import Value
from pipeline.dataset.commit.data_files import File
from pipeline.dataset.feature_info import FeatureInfo, feature_columns, is_column_type
from pipeline.dataset.shards.reader import ShardErrors, check_columns, open_shard


class NewestFooter:
    """The footer of the newest file of a snapshot, read when it is first used. Picklable.

    Args:
        root: the version's folder.
        shards: the files of rows, oldest first.
        failure_shards: the files of failures. The newest one is used if there are no rows.
    """

    def __init__(self, root: str, shards: Sequence[File], failure_shards: Sequence[File]) -> None:
        self.root = root
        self.shard = shards[-1] if shards else None
        self.newest = next(iter([*failure_shards, *shards][-1:]), None)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the rows in their stored types, without metadata. Only the fixed ones if there are no rows.

        Raises:
            ConfigError: a fixed column is missing, or a column has a type that no writer produces.
        """
        if self.shard is None:
            return FIXED
        found = self._stored_schema.remove_metadata()
        check_columns(self.root, self.shard, found, [*FIXED.names])
        parts = {name: (feature, part) for feature in self.features.values() for name, part in feature_columns(feature)}
        counts = Counter(found.names)
        for field in found:
            is_valid = field.name not in FIXED.names or FIXED.field(field.name).type == field.type
            if field.name in parts:
                is_valid = is_column_type(*parts[field.name], field.type)
            if not is_valid or counts[field.name] > 1:
                raise ConfigError(
                    "path",
                    f"{self.shard.path!r} of {self.root!r} has a column {field.name!r} of {str(field.type)[:100]}",
                    "restore it, or open another snapshot",
                )
        return found

    @cached_property
    def lineage(self) -> Value:
        """The metadata that the writer stored. Raises ``ConfigError`` if it is no JSON object."""
        source = f"the footer of {self.newest.path!r} of {self.root!r}" if self.newest else ""
        value = strict_json.parse((self._stored_schema.metadata or {}).get(b"tessera", b"{}"), source)
        value.object()
        return value

    @cached_property
    def features(self) -> dict[str, FeatureInfo]:
        """The features by name. Raises ``ConfigError`` for values that no writer produces."""
        return {
            name: FeatureInfo.of(name, values) for name, values in self.lineage.member("features", {}).object().items()
        }

    @cached_property
    def _stored_schema(self) -> pa.Schema:
        if self.newest is None:
            return pa.schema([])
        with ShardErrors(self.root, self.newest):
            return open_shard(self.root, self.newest).schema_arrow
