"""The files of pins: their content, and the change from one generation to the next. `pins` describes them."""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from pipeline.core import strict_json
from pipeline.core.errors import ConfigError, StorageError, TesseraError
from pipeline.core.strict_json import Value
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.storage.local_files import RefusedFile

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)
MAX_PINS = 100
"""Maximum number of pins of one snapshot."""
FOLDER = "_pins"
_FILE = re.compile(r"([0-9]{8,15})\.([0-9]{6,15})\.json", re.ASCII)
_MAX_GENERATION = 10**12
"""No writer gets there: a file of this generation or a higher one is not read, and is replaced by the first one."""
_MAX_BYTES = 1 << 16
_ATTEMPTS = 50
"""How often a change is repeated because another process changed the same pins."""


@dataclass(frozen=True)
class Pin:
    """A name for a snapshot."""

    name: str
    snapshot: int
    created: str
    """ISO time with offset."""
    until: str | None = None
    """ISO time with offset; None: for ever."""

    def is_expired(self) -> bool:
        """Returns whether `vacuum` may delete the snapshot."""
        now = datetime.datetime.now(datetime.UTC)
        return self.until is not None and datetime.datetime.fromisoformat(self.until) <= now


@dataclass(frozen=True)
class PinState:
    """The pins of one snapshot at one generation."""

    number: int
    generation: int = 0
    """0: there is no file."""
    pins: tuple[Pin, ...] = ()
    deleting: bool = False
    """`vacuum` has begun to delete the snapshot."""
    unreadable: str | None = None
    """The URL of the file, if it is not one that Tessera writes."""


def all_states(folder: DatasetFolder, numbers: Iterable[int], most: int) -> dict[int, PinState]:
    """Reads the pins of at most ``most`` snapshots: the newest of ``numbers`` first, then those of other snapshots.

    Returns:
        number of a snapshot -> its state, without snapshots that have no file of pins.
    """
    listed, known = _listed(folder), set(numbers)
    found = {}
    for number in sorted(listed, key=lambda number: (number in known, number), reverse=True)[:most]:
        state = _read(folder, number, listed[number])
        if state.generation:
            found[number] = state
    return found


def _read(folder: DatasetFolder, number: int, generations: Collection[int]) -> PinState:
    """Reads the pins of one snapshot. Without a file the generation is 0.

    Args:
        folder: the version's folder.
        number: of the snapshot.
        generations: those of its files, as listed before.
    """
    for _ in range(_ATTEMPTS):
        generation = max(generations, default=0)
        if not generation:
            return PinState(number)
        path = _path(number, generation)
        if generation >= _MAX_GENERATION:
            return PinState(number, generation, unreadable=folder.url(path))
        try:
            return _parse(strict_json.parse(folder.read(path, _MAX_BYTES), folder.url(path)), number, generation)
        except FileNotFoundError:  # the next generation has replaced it
            generations = _listed(folder).get(number, ())
        except (ConfigError, RefusedFile):
            return PinState(number, generation, unreadable=folder.url(path))
    raise TesseraError(f"{folder.url(path)!r} is listed, and is not there")


def update(folder: DatasetFolder, number: int, change: Callable[[PinState], PinState | None]) -> PinState:
    """Changes the pins of a snapshot.

    Args:
        folder: the version's folder.
        number: of the snapshot.
        change: the state -> the next one, or None to leave it. It is called again if another process was faster.

    Returns:
        the state afterwards.

    Raises:
        TesseraError: other processes change these pins all the time.
    """
    for _ in range(_ATTEMPTS):
        state = _read(folder, number, _listed(folder).get(number, ()))
        following = change(state)
        if following is None:
            return state
        if state.generation >= _MAX_GENERATION:
            folder.remove(_path(number, state.generation))
            continue
        following = replace(following, generation=state.generation + 1)
        path = _path(number, following.generation)
        if not _create(folder, path, _json(following)):
            if path.removeprefix(f"{FOLDER}/") in folder.list_folders(FOLDER):
                folder.remove_folder(path)  # no writer makes one
            continue
        generations = _listed(folder).get(number, [])
        if max(generations, default=0) > following.generation:
            # `state` was outdated: its next generation had been created, replaced and deleted
            folder.remove(path)
            continue
        for old in generations:
            if old < following.generation:
                folder.remove(_path(number, old))
        return following
    raise TesseraError(f"other processes change the pins of snapshot {number} of {folder.root!r}: try again")


def _create(folder: DatasetFolder, path: str, data: bytes) -> bool:
    """Creates a file exclusively. Returns False if it exists already, or existed."""
    try:
        return folder.publish_new(path, data)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):  # on an object store: removed before it was compared
            return False
        raise


def remove_orphans(folder: DatasetFolder, snapshot_numbers: Callable[[], Collection[int]]) -> None:
    """Deletes the files of pins of deleted snapshots.

    Args:
        folder: the version's folder.
        snapshot_numbers: returns the numbers of its snapshots. Called after the pins are listed, since a pin is
            written after its snapshot.
    """
    listed = _listed(folder)
    for number in sorted(set(listed) - set(snapshot_numbers())):
        for generation in sorted(listed[number]):
            folder.remove(_path(number, generation))


def _listed(folder: DatasetFolder) -> dict[int, list[int]]:
    """Returns the generations of each snapshot that have a file. Names that `_path` does not produce are ignored."""
    found: dict[int, list[int]] = {}
    for name in folder.list_files(FOLDER, ".json"):
        match = _FILE.fullmatch(name)
        number, generation = (int(match[1]), int(match[2])) if match else (0, 0)
        if generation and _path(number, generation) == f"{FOLDER}/{name}":
            found.setdefault(number, []).append(generation)
    return found


def _path(number: int, generation: int) -> str:
    return f"{FOLDER}/{number:08d}.{generation:06d}.json"


def _json(state: PinState) -> bytes:
    values = {
        "snapshot": state.number,
        "token": secrets.token_hex(8),  # `publish_new` needs a content of its own
        "deleting": state.deleting,
        "pins": [{"name": one.name, "created": one.created, "until": one.until} for one in state.pins],
    }
    return json.dumps(values, indent=1).encode()


def _parse(values: Value, number: int, generation: int) -> PinState:
    """Raises ``ConfigError`` for what `_json` does not return."""
    if values.member("snapshot").integer() != number:
        values.member("snapshot").fail(f"{number}, as the file's name says")
    found = [_pin(one, number) for one in values.member("pins").items()]
    if len(found) > MAX_PINS or len({one.name for one in found}) < len(found):
        values.member("pins").fail(f"at most {MAX_PINS} pins, each name once")
    return PinState(number, generation, tuple(found), values.member("deleting").boolean())


def _pin(value: Value, number: int) -> Pin:
    until = value.member("until")
    return Pin(
        value.member("name").string(NAME, "the name of a pin"),
        number,
        _time(value.member("created")),
        None if until.value is None else _time(until),
    )


def _time(value: Value) -> str:
    text = value.string(most=40)
    try:
        has_offset = datetime.datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        has_offset = False
    if not has_offset:
        value.fail("a time with its offset from UTC")
    return text
