"""YAML that a person wrote, as plain values: no tags, no key twice, nothing that unfolds or takes time without end."""

from __future__ import annotations

from typing import Any

import yaml

from pipeline.core.errors import ConfigError, one_line

MAX_CHARACTERS = 1 << 20
"""A longer text is not parsed: a million characters take the parser up to 3 s."""
_MAX_VALUES = 100_000
_MAX_DEPTH = 50
_MAX_DIGITS = 100


def parse(text: str, where: str) -> Any:
    """The values of a YAML text. ``where`` names it in errors.

    Raises:
        ConfigError: not YAML, tags, a key twice in one mapping, a million characters, more than 100,000 values (merged
            ones counted) or 50 levels, a number of more than 100 digits.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(where, f"{len(text)} characters", f"at most {MAX_CHARACTERS}")
    try:
        values = yaml.load(text, Loader=_Loader)
    except _TooMuch as error:
        raise ConfigError(where, str(error), "write it plainly") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # as of the date 2001-99-99
        raise ConfigError(where, f"is not YAML ({_told(error)})", "mend the syntax") from error
    _check_size(values, where)
    return values


def _told(error: Exception) -> str:
    """Without the piece of the text that PyYAML shows: half of a URL may be in it, and half of a password."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return one_line(str(error))
    mark = error.problem_mark or error.context_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return one_line(" ".join(filter(None, (error.context, error.problem)))) + place


class _TooMuch(yaml.YAMLError):
    """The text would become more than a config may be."""

    def __init__(self) -> None:
        super().__init__(f"over {_MAX_VALUES} values or {_MAX_DEPTH} levels once its aliases are unfolded")


class _Loader(yaml.SafeLoader):
    """Counts what it makes before it makes it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = self.merged = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > _MAX_VALUES or self.depth > _MAX_DEPTH + 1:
            raise _TooMuch
        event = self.peek_event()  # type: ignore[no-untyped-call]
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
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts what ``<<`` names before the mapping's own pairs, whose keys win; of several, the first wins."""
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
                raise _TooMuch
            pairs += one.value
        return pairs

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """An integer or a float. Of many digits, or of many parts as in ``1:30:00``, it would take long to read, and
        Python writes none of more than 4300 digits."""
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
    """Counts a value as often as aliases show it."""
    count, todo = 0, [(values, 0)]
    while todo:
        value, depth = todo.pop()
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ConfigError(where, str(_TooMuch()), "write it plainly")
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        todo.extend((item, depth + 1) for item in items)
