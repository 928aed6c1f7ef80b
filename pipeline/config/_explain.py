"""Errors of pydantic as one line: where, what was found, what is allowed."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError

from pipeline.config.models import PipelineConfig
from pipeline.core.errors import ConfigError, NotAllowed, one_line


def config_error(error: ValidationError, raw: dict[str, Any]) -> ConfigError:
    """Returns the first error of ``error`` in one line.

    Args:
        raw: the values that were validated. They decide which parts of pydantic's path are tags of unions.
    """
    errors = error.errors(include_url=False)
    unknown = (one for one in errors if one["type"] == "extra_forbidden")  # what is missing may be misspelt
    first = next(unknown, errors[0])
    where = _path_in(raw, first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    found = _shown(first["input"])
    if first["type"] == "extra_forbidden":
        section = _section_at(first["loc"][:-1])
        known = f"known keys: {', '.join(section)}" if section else "no such key"
        return ConfigError(where, f"unknown key {first['loc'][-1]!r}", known + more)
    if first["type"] == "missing":
        return ConfigError(where, "is missing", "it is required" + more)
    if first["type"].startswith("union_tag"):
        kinds = ", ".join(_kinds_at(first["loc"]))
        kind = first["ctx"].get("tag")
        return ConfigError(f"{where}.kind", f"found {kind!r}" if kind else "is missing", f"one of {kinds}{more}")
    refused = first.get("ctx", {}).get("error")
    if isinstance(refused, NotAllowed):
        path = ".".join(part for part in (where if first["loc"] else "", refused.where) if part)
        return ConfigError(path, refused.found, refused.allowed + more)
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(where, f"found {found}", message[0].lower() + message[1:] + more)


def _shown(value: Any) -> str:
    """Returns a value as it appears in an error: at most 80 characters."""
    try:
        return one_line(repr(value), 80)
    except (ValueError, RecursionError):  # a number of thousands of digits; a value that contains itself
        return f"a value of type {type(value).__name__} that is too large to show"


def _path_in(raw: Any, loc: tuple[str | int, ...]) -> str:
    """Returns pydantic's path as a dotted path of keys, without the tags of unions."""
    names: list[str] = []
    value = raw
    tagged = False
    for part in loc:
        if not tagged and isinstance(value, dict) and value.get("kind") == part:
            tagged = True
            continue
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value, tagged = value[part], False
        names.append(str(part))
    return ".".join(names) or "config"


def _kinds_at(loc: tuple[str | int, ...]) -> list[str]:
    """Returns the kinds that a section at ``loc`` may have."""
    members = get_args(_model_at(loc))
    return [kind for member in members for kind in get_args(member.model_fields["kind"].annotation)]


def _section_at(loc: tuple[str | int, ...]) -> list[str]:
    """Returns the keys of the section at ``loc``."""
    return list(getattr(_model_at(loc), "model_fields", {}))


def _model_at(loc: tuple[str | int, ...]) -> Any:
    """Returns the model of the section at ``loc``, or a union of models. None: there is no such section."""
    model: Any = PipelineConfig
    for part in loc:
        model = _step(model, part)
    return model


def _step(model: Any, part: str | int) -> Any:
    """Returns the annotation of one key of a model, of a dict or of a union."""
    if hasattr(model, "model_fields"):
        info = model.model_fields.get(part)
        return _plain(info.annotation) if info else None
    if get_origin(model) is dict:
        return _plain(get_args(model)[1])
    for member in get_args(model):  # a union: the tag names the member
        kind = getattr(member, "model_fields", {}).get("kind")
        if kind is not None and part in get_args(kind.annotation):
            return member
    return None


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
