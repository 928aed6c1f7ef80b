"""YAML that a person wrote, as plain values: no tags, no key twice, no aliases that unfold without end."""

from __future__ import annotations

from typing import Any, cast

import yaml

from pipeline.errors import ConfigError, one_line

_MAX_VALUES = 100_000
_MAX_DEPTH = 50


def parse(text: str, where: str) -> Any:
    """The values of a YAML text. ``where`` names it in errors.

    Raises:
        ConfigError: not YAML, tags, a key twice in one mapping, more than 100,000 values or 50 levels.
    """
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # dates such as 2001-99-99 raise ValueError
        raise ConfigError(where, f"is not YAML ({one_line(str(error))})", "mend the syntax") from error
    _check_size(values, where)
    return values


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


def _check_size(values: Any, where: str) -> None:
    """Counts a value as often as aliases show it."""
    count, todo = 0, [(values, 0)]
    while todo:
        value, depth = todo.pop()
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ConfigError(
                where,
                f"over {_MAX_VALUES} values or {_MAX_DEPTH} levels once its aliases are unfolded",
                "write it plainly",
            )
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        todo.extend((item, depth + 1) for item in items)
