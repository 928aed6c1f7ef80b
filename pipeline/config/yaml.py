"""Parses YAML into plain values. Refuses tags, duplicate keys, and text that takes long to parse or grows too large."""

from __future__ import annotations

from typing import Any

import yaml

from pipeline.core.errors import ConfigError, one_line

MAX_CHARACTERS = 1 << 20
"""Longer text is refused: a million characters take the parser up to 3 s."""
_MAX_VALUES = 100_000
_MAX_DEPTH = 50
_MAX_DIGITS = 100


def parse(text: str, where: str) -> Any:
    """Returns the values of a YAML text.

    Args:
        where: names the text in errors.

    Raises:
        ConfigError: the text is not YAML, has a tag, the same key twice in one mapping, more than a million characters,
            100,000 values (merged ones counted) or 50 levels, or a number of more than 100 digits.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(where, f"{len(text)} characters", f"at most {MAX_CHARACTERS}")
    try:
        values = yaml.load(text, Loader=_Loader)
    except _TooLarge as error:
        raise ConfigError(where, str(error), "write it plainly") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # as of the date 2001-99-99
        raise ConfigError(where, f"is not YAML ({_described(error)})", "mend the syntax") from error
    _check_size(values, where)
    return values


def _described(error: Exception) -> str:
    """Returns an error as text, without the excerpt that PyYAML shows: it may contain a part of a URL or a password."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return one_line(str(error))
    mark = error.problem_mark or error.context_mark
    position = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return one_line(" ".join(filter(None, (error.context, error.problem)))) + position


class _TooLarge(yaml.YAMLError):
    """The values of the text would be more, or deeper, than allowed."""

    def __init__(self) -> None:
        super().__init__(f"over {_MAX_VALUES} values or {_MAX_DEPTH} levels once its aliases are unfolded")


class _Loader(yaml.SafeLoader):
    """Counts nodes before it constructs them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = self.merged = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > _MAX_VALUES or self.depth > _MAX_DEPTH + 1:
            raise _TooLarge
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"found the tag {event.tag!r}", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merges the mappings that ``<<`` names into ``node``. Its own keys win over merged ones, earlier mappings over
        later ones."""
        merged: list[Any] = []
        own: list[Any] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged += self._merged(node, value)
            else:
                own.append((key, value))
            if key.tag == "tag:yaml.org,2002:value":
                key.tag = "tag:yaml.org,2002:str"
        node.value = merged + own

    def _merged(self, node: yaml.MappingNode, value: yaml.Node) -> list[Any]:
        """Returns the pairs of the mapping, or the sequence of mappings, that ``<<`` names."""
        several = value.value if isinstance(value, yaml.SequenceNode) else [value]
        pairs: list[Any] = []
        for one in reversed(several):
            if not isinstance(one, yaml.MappingNode) or one is node:
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping", node.start_mark, "<< takes other mappings", value.start_mark
                )
            self.flatten_mapping(one)
            self.merged += len(one.value)
            if self.merged > _MAX_VALUES:
                raise _TooLarge
            pairs += one.value
        return pairs

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Returns an integer or a float.

        Many digits, or many parts as in ``1:30:00``, would take long to parse. Python prints no integer of more than
        4300 digits.
        """
        if len(node.value) > _MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} characters, at most {_MAX_DIGITS}", node.start_mark
            )
        if node.tag == "tag:yaml.org,2002:int":
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def _check_size(values: Any, where: str) -> None:
    """Raises ``ConfigError`` if there are too many values or levels. A value counts once for each alias of it."""
    count, todo = 0, [(values, 0)]
    while todo:
        value, depth = todo.pop()
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ConfigError(where, str(_TooLarge()), "write it plainly")
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        todo.extend((item, depth + 1) for item in items)
