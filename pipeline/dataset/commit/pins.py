"""Pins: names for snapshots, which `vacuum` leaves to the training that reads them.

``_pins/00000012.000003.json`` holds all pins of snapshot 12, and whether `vacuum` has begun to delete it. A file is
never changed: the next state is created exclusively under the next generation, and the highest generation counts. So
either a pin or a deletion comes first, on a local disk and on S3, and no lease is needed
(``docs/decisions/0022-pins.md``).
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from pipeline.core.errors import ConfigError, TesseraError
from pipeline.dataset.commit import snapshots
from pipeline.dataset.commit._pin_files import FOLDER, MAX_PINS, NAME, Pin, PinState, all_states, remove_orphans, update
from pipeline.dataset.commit.folder import DatasetFolder, NotAFolder
from pipeline.storage.local_files import RefusedFile

__all__ = [
    "MAX_PINS",
    "MAX_SNAPSHOTS",
    "Pin",
    "PinState",
    "is_held",
    "mark_deleting",
    "pin",
    "pins",
    "remove_deleted",
    "remove_expired",
    "resolve",
    "states",
    "unpin",
]

MAX_SNAPSHOTS = 1000
"""Maximum number of snapshots whose pins are read."""
_RULE = "a letter, then at most 63 letters, digits, '.', '_' or '-'"
_PIN_ONE = "give its number, or pin it with `tessera snapshots DATASET --pin NAME`"


def pin(root: str, name: str, number: int | None = None, until: datetime.datetime | None = None) -> Pin:
    """Pins a snapshot of the version at ``root``. A pin of the same name and snapshot gets the new date.

    Args:
        name: letters, digits and ``.``, ``_``, ``-``, the first a letter.
        number: of the snapshot; None: the newest.
        until: the time until which `vacuum` keeps it; None: until `unpin`.

    Raises:
        ConfigError: a name that is not allowed or that pins another snapshot; no such snapshot, or one with samples
            that were forgotten since.
        TesseraError: `vacuum` deletes the snapshot at the same time.
    """
    if not NAME.fullmatch(name):
        raise ConfigError("--pin", f"found {name!r}", _RULE)
    folder, found = DatasetFolder(root), snapshots.numbers(root)
    number = max(found, default=0) if number is None else number
    if number not in found:
        raise ConfigError("--at", f"there is no snapshot {number} in {root!r}", f"one of: {_listed(found)}")
    if number != max(found) and _has_forgotten(root, number):
        what = f"snapshot {number} holds samples that were forgotten since, so that `tessera vacuum` deletes it"
        raise ConfigError("--at", what, "a later one")
    states = all_states(folder, found, MAX_SNAPSHOTS)
    if number not in states and len(states) >= MAX_SNAPSHOTS:
        raise ConfigError("--pin", f"{len(states)} snapshots of {root!r} were pinned", "run `tessera vacuum` first")
    _refuse_other(states, name, number, found)
    former = tuple(one for one in states[number].pins if one.name == name) if number in states else ()
    new = Pin(name, number, _now().isoformat(timespec="seconds"), until.isoformat() if until else None)
    update(folder, number, lambda state: _with_pin(root, state, new))
    # `vacuum` deletes a snapshot first and its pins afterwards, so a pin of one that is here now holds
    try:
        if number not in snapshots.numbers(root):
            raise TesseraError(f"snapshot {number} of {root!r} was deleted by `tessera vacuum` at the same time")
        _refuse_other(all_states(folder, found, MAX_SNAPSHOTS), name, number, found)
    except TesseraError:
        update(folder, number, lambda state: _with_former(state, name, former))
        raise
    for other, state in states.items():  # the same name, expired
        if other != number and any(one.name == name for one in state.pins):
            update(folder, other, lambda state: _without(state, {name}))
    return new


def unpin(root: str, name: str) -> None:
    """Removes a pin. Raises ``ConfigError`` if there is none of that name."""
    folder = DatasetFolder(root)
    states = all_states(folder, snapshots.numbers(root), MAX_SNAPSHOTS)
    numbers = [number for number, state in states.items() if any(one.name == name for one in state.pins)]
    if not numbers:
        raise _no_pin("--unpin", root, name, states)
    for number in numbers:
        update(folder, number, lambda state: _without(state, {name}))


def pins(root: str) -> tuple[list[Pin], list[str]]:
    """Returns the pins of the version at ``root``, by snapshot and time, and the paths of unreadable files of pins."""
    folder = DatasetFolder(root)
    try:
        found = all_states(folder, snapshots.numbers(root), MAX_SNAPSHOTS)
    except (RefusedFile, NotAFolder):
        return [], [folder.url(FOLDER)]
    by_time = sorted((one for state in found.values() for one in state.pins), key=lambda one: one.created)
    by_snapshot = sorted(by_time, key=lambda one: one.snapshot)
    return by_snapshot, [state.unreadable for state in found.values() if state.unreadable]


def resolve(root: str, snapshot: int | str | None, found: Mapping[int, str]) -> int:
    """Returns the number of a snapshot.

    Args:
        root: the version's folder.
        snapshot: a number, the name of a pin, or None: the newest.
        found: `snapshots.numbers` of ``root``.

    Raises:
        ConfigError: no such snapshot or pin, or the pinned snapshot has gone.
    """
    number = max(found) if snapshot is None else snapshot
    if isinstance(number, str):
        states = all_states(DatasetFolder(root), found, MAX_SNAPSHOTS)
        named = [one for state in states.values() for one in state.pins if one.name == number]
        if not named:
            raise _no_pin("snapshot", root, number, states)
        # several only if one has expired
        one = max(named, key=lambda one: (one.snapshot in found, not one.is_expired(), one.created))
        if one.snapshot not in found:
            what = f"pin {one.name!r} names snapshot {one.snapshot} of {root!r}, which has gone"
            raise ConfigError("snapshot", what, f"one of: {_listed(found)}")
        return one.snapshot
    if number not in found:
        raise ConfigError("snapshot", f"there is no snapshot {number} in {root!r}", f"one of: {_listed(found)}")
    return number


# -- vacuum ---------------------------------------------------------------------------------------


def states(folder: DatasetFolder, numbers: Collection[int]) -> dict[int, PinState]:
    """Reads the pins of all snapshots ``numbers``, and of at most `MAX_SNAPSHOTS` others: number -> state. Snapshots
    without a file of pins are left out."""
    return all_states(folder, numbers, len(numbers) + MAX_SNAPSHOTS)


def mark_deleting(folder: DatasetFolder, number: int, although_pinned: bool) -> tuple[bool, list[Pin]]:
    """Records that a snapshot is being deleted, after which it cannot be pinned.

    Args:
        folder: the version's folder.
        number: of the snapshot.
        although_pinned: delete it even if it is pinned.

    Returns:
        False if a pin holds the snapshot, or a file of pins that cannot be read; and the pins that were removed.
    """
    removed: list[Pin] = []

    def change(state: PinState) -> PinState | None:
        removed.clear()
        if is_held(state) and not although_pinned:
            return None
        removed.extend(state.pins)
        return replace(state, pins=(), deleting=True, unreadable=None)

    return update(folder, number, change).deleting, removed


def is_held(state: PinState | None) -> bool:
    """Returns whether a snapshot is kept by its pins: one has not expired, or they cannot be read."""
    if state is None or state.deleting:
        return False
    return state.unreadable is not None or any(not one.is_expired() for one in state.pins)


def remove_expired(folder: DatasetFolder, number: int) -> list[Pin]:
    """Removes the expired pins of a snapshot and returns them."""
    removed: list[Pin] = []

    def change(state: PinState) -> PinState | None:
        removed[:] = [one for one in state.pins if one.is_expired()]
        return _without(state, {one.name for one in removed}) if removed else None

    update(folder, number, change)
    return removed


def remove_deleted(folder: DatasetFolder) -> None:
    """Deletes the files of pins of snapshots that are deleted."""
    remove_orphans(folder, lambda: snapshots.numbers(folder.root))


# -- parts ----------------------------------------------------------------------------------------


def _has_forgotten(root: str, number: int) -> bool:
    """Returns whether a snapshot holds samples that were forgotten since."""
    newest = snapshots.newest(root)
    try:
        return newest is not None and bool(set(newest.forgotten) - set(snapshots.read(root, number).forgotten))
    except FileNotFoundError:
        return False  # deleted since it was listed, which `pin` finds out


def _with_pin(root: str, state: PinState, new: Pin) -> PinState:
    if state.deleting:
        raise TesseraError(f"snapshot {new.snapshot} of {root!r} is being deleted by `tessera vacuum`: pin a later one")
    if state.unreadable:
        raise ConfigError("--pin", f"{state.unreadable!r} is no file of pins", "remove it")
    others = tuple(one for one in state.pins if one.name != new.name)
    if len(others) >= MAX_PINS:
        raise ConfigError("--pin", f"snapshot {new.snapshot} has {len(others)} pins", f"at most {MAX_PINS}")
    return replace(state, pins=(*others, new))


def _with_former(state: PinState, name: str, former: tuple[Pin, ...]) -> PinState:
    """Returns ``state`` with the pins of ``name`` that it had before."""
    return replace(state, pins=(*(one for one in state.pins if one.name != name), *former))


def _without(state: PinState, names: set[str]) -> PinState | None:
    kept = tuple(one for one in state.pins if one.name not in names)
    return replace(state, pins=kept) if len(kept) < len(state.pins) else None


def _refuse_other(states: Mapping[int, PinState], name: str, number: int, found: Mapping[int, str]) -> None:
    """Raises ``ConfigError`` if ``name`` pins another snapshot than ``number``."""
    for other, state in states.items():
        is_other = other != number and other in found
        if is_other and any(one.name == name and not one.is_expired() for one in state.pins):
            raise ConfigError("--pin", f"{name!r} pins snapshot {other}", f"another name, or --unpin {name} first")


def _no_pin(setting: str, root: str, name: str, states: Mapping[int, PinState]) -> ConfigError:
    names = sorted({one.name for state in states.values() for one in state.pins})
    return ConfigError(
        setting, f"there is no pin {name!r} in {root!r}", f"one of: {', '.join(names)}" if names else _PIN_ONE
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(one) for one in sorted(numbers))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
