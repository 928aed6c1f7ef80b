"""The state of a reader: where it is, and what decides the rows that follow. Plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.core.errors import ConfigError, describe
from pipeline.core.strict_json import Value
from pipeline.dataset.loading.sequence import MAX_STREAMS, Sequence

FORMAT = 1
MAX_EPOCH = 1 << 40
_HERE = "the state of the reader"


def save(sequence: Sequence, epoch: int, position: int) -> dict[str, Any]:
    """Returns the state.

    Args:
        sequence: the rows.
        epoch: counts from 0.
        position: batches of the epoch that all ranks together were given.
    """
    state = {"format": FORMAT, "epoch": epoch, "position": position, "seed": sequence.seed, **sequence.settings()}
    if sequence.epoch_rows is not None:
        for source, drawn in zip(state["sources"], sequence.drawn(epoch, position), strict=True):
            source |= drawn
    return state


def load(sequence: Sequence, state: Mapping[str, Any]) -> tuple[Sequence, int, int]:
    """Returns the sequence of the state, its epoch and its position.

    The sequence is ``sequence`` at the state's snapshots, and with its streams and chunks if ``sequence`` has none.

    Raises:
        ConfigError: not a state, a state of other settings, or a snapshot that is gone.
    """
    value = Value(dict(state), _HERE)
    if value.member("format", None).value != FORMAT:
        raise ConfigError(_HERE, f"has format {state.get('format')!r}", f"format {FORMAT}")
    epoch, position = value.member("epoch").integer(most=MAX_EPOCH), value.member("position").integer()
    stored = list(value.member("sources").items())
    if len(stored) != len(sequence.sources):
        raise _other("datasets", len(stored), len(sequence.sources))
    sources = []
    for source, one in zip(sequence.sources, stored, strict=True):
        version, snapshot = one.member("version").value, one.member("snapshot").integer()
        if version != source.version:
            found = f"is of version {version!r}, this reader has {source.version!r}"
            raise ConfigError(_HERE, found, f"dataset.open(..., version={version!r})")
        if snapshot != source.data.snapshot:
            source = replace(source, data=_at(source.data, snapshot))
        sources.append(source)
    sequence = replace(
        sequence,
        sources=tuple(sources),
        streams=sequence.streams or value.member("streams").integer(least=1, most=MAX_STREAMS),
        chunk_rows=sequence.chunk_rows or value.member("chunk_rows").integer(least=1),
    )
    _compare(value, sequence)
    if position * sequence.batch_size > sequence.rows:
        raise ConfigError(_HERE, f"has position {position} in an epoch of {sequence.rows} rows", "restore the file")
    return sequence, epoch, position


def _compare(state: Value, sequence: Sequence) -> None:
    """Raises ``ConfigError`` for the first setting of the state that the reader does not have."""
    given = {"seed": sequence.seed, **sequence.settings()}
    sources = given.pop("sources")
    for name, value in given.items():
        if state.member(name, None).value != value:
            raise _other(name, state.member(name, None).value, value)
    for source, stored in zip(sources, state.member("sources").items(), strict=True):
        for name, value in source.items():
            if stored.member(name, None).value == value:
                continue
            if name == "index":
                raise ConfigError(
                    _HERE,
                    "was saved when other rows were read: of other shards, or with other labels",
                    "restore the dataset's shards, and give labels for the same rows",
                )
            raise _other(name, stored.member(name, None).value, value)


def _other(name: str, stored: Any, given: Any) -> ConfigError:
    return ConfigError(_HERE, f"was saved with {name}={stored!r}, this reader has {given!r}", f"{name}={stored!r}")


def _at(data: Any, snapshot: int) -> Any:
    """Returns the dataset at another snapshot."""
    try:
        return data.at(snapshot)
    except ConfigError as error:
        raise ConfigError(
            _HERE,
            f"is of snapshot {snapshot}, which cannot be read ({describe(error)})",
            "begin with another epoch; to keep a snapshot, pin it (`tessera snapshots --pin`)",
        ) from error
