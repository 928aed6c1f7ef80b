"""The windows of one sample and their rows: cuts by time, and merges or matches them with the stored rows."""

from __future__ import annotations

from typing import Any

from pipeline.config.models import WindowConfig
from pipeline.core.errors import SampleError
from pipeline.core.media import MODALITIES, Modality, Span
from pipeline.core.schema import METERS, ROLES
from pipeline.stages import windows
from pipeline.stages._sample_media import SampleMedia, Times, Window
from pipeline.stages.reuse import StoredTimes

WHOLE_SAMPLE: Times = {"start_s": None, "end_s": None, "text_from": None, "text_to": None}
"""The only window of a sample without times."""


def cut_by_time(last: Span | None, window: WindowConfig) -> list[Times]:
    """Returns the windows of a sample up to the end of its last span. Raises ``SampleError`` if they are too many."""
    cuts = windows.cut(last.end_s, window, last.tick_s) if last is not None else []
    return [{**WHOLE_SAMPLE, "start_s": start, "end_s": end} for start, end in cuts] or [WHOLE_SAMPLE]


def repeated_bytes(cuts: list[Times], sample: dict[str, Any], copied_bytes: int) -> int:
    """Returns the bytes of texts and columns that all rows of a sample hold together; 0 for a single row.

    Args:
        cuts: the windows.
        sample: a row of the listing.
        copied_bytes: size of the passthrough columns of one row.
    """
    if len(cuts) == 1:
        return 0
    text_is_cut = cuts[0]["text_from"] is not None  # then each row has only its part of the text
    text = "" if text_is_cut else sample["inline_text"] or ""
    strings = (text, sample["sample_id"], sample["source_version"], *(sample[f"{role}_uri"] or "" for role in ROLES))
    return len(cuts) * (copied_bytes + sum(map(len, strings)))


def match_by_start(found: list[Window], stored: dict[int, Any], stored_times: StoredTimes) -> dict[int, Any]:
    """Finds the stored row of each window of a retry by where it starts: numbers skip windows without media, which may
    be others than before.

    Returns:
        index in ``found`` -> position of its stored row. A stored row without times has what belongs to all windows,
        and is that of the first window if no other is.
    """
    by_start, untimed = _by_start(stored, stored_times)
    if found[0][0]["start_s"] is None:
        return {number: stored[number] for number in range(len(found)) if number in untimed}
    matches = ((number, by_start.get(times["start_s"])) for number, (times, _) in enumerate(found))
    reused = {number: stored[window] for number, window in matches if window is not None}
    if 0 in untimed:
        reused.setdefault(0, stored[0])
    return reused


def _by_start(stored: dict[int, Any], stored_times: StoredTimes) -> tuple[dict[float, int], list[int]]:
    """Returns start -> window of the stored rows with times, and the windows of those without."""
    starts = {window: stored_times.of(row["file"], row["position"])[0] for window, row in sorted(stored.items())}
    timed = {start: window for window, start in starts.items() if start is not None}
    return timed, [window for window, start in starts.items() if start is None]


def merge_stored(
    media: SampleMedia,
    found: list[Window],
    stored: dict[int, Any],
    done: frozenset[int],
    stored_times: StoredTimes,
    cuts_text: bool,
) -> tuple[list[Window], list[int], dict[int, Any]]:
    """Merges the windows of a retry with those of the sample's stored rows.

    It is for samples with a file that cannot be opened now. Their cut may depend on that file, so the windows of stored
    rows are kept, and what can be read is computed in them.

    Args:
        media: the media that can be read now.
        found: the windows by these media.
        stored: window -> position of its stored row (``file``, ``position``).
        done: windows that are not computed. If there are any, all windows keep their numbers.
        stored_times: times of the stored rows.
        cuts_text: a feature cuts texts into windows of tokens.

    Returns:
        the windows, the number of each, and number -> position of its stored row.
    """
    by_start, untimed = _by_start(stored, stored_times)
    is_timed = found[0][0]["start_s"] is not None
    if not by_start:
        return _merge_untimed(media, found, stored, done, cuts_text and len(stored) > 1 and "text" not in media.spans)
    whole = ({**WHOLE_SAMPLE}, media.modalities_in(None, None))
    merged: dict[float, tuple[Times, set[Modality], int]] = {}
    if is_timed:
        merged = {times["start_s"]: (times, present, number) for number, (times, present) in enumerate(found)}
    elif untimed:
        merged = {-1.0 - window: (*whole, window) for window in untimed}
    elif 0 not in done:
        merged = {-1.0: (*whole, 0)} if 0 not in stored else {}
    for start, window in by_start.items():
        _, end = stored_times.of(stored[window]["file"], stored[window]["position"])
        entry = merged.get(start)
        if entry is None or (end is not None and entry[0]["end_s"] < end):
            entry = ({**WHOLE_SAMPLE, "start_s": start, "end_s": end}, media.modalities_in(start, end), window)
        merged[start] = (*entry[:2], window)
    ordered = sorted(merged.items(), key=lambda item: item[0])
    if len({number for _, (*_, number) in ordered}) < len(ordered):  # media are in other windows than before
        if done:
            ordered = [(start, entry) for start, entry in ordered if start in by_start or start < 0]
        else:
            ordered = [(start, (*entry[:2], number)) for number, (start, entry) in enumerate(ordered)]
    windows_of = {**by_start, **({} if is_timed else {-1.0 - window: window for window in untimed})}
    reused = {entry[2]: stored[windows_of[start]] for start, entry in ordered if start in windows_of}
    if is_timed and untimed:
        reused.setdefault(ordered[0][1][2], stored[untimed[0]])
    return [entry[:2] for _, entry in ordered], [entry[2] for _, entry in ordered], reused


def _merge_untimed(
    media: SampleMedia, found: list[Window], stored: dict[int, Any], done: frozenset[int], are_parts: bool
) -> tuple[list[Window], list[int], dict[int, Any]]:
    """`merge_stored` for stored rows without times. ``are_parts``: they are parts of a text that cannot be read now,
    and keep rows of their own."""
    numbers = list(range(len(found)))
    if found[0][0]["start_s"] is None:
        # other windows of tokens are replaced by a new cut as soon as the text can be read
        more = [] if "text" in media.spans else [window for window in sorted(stored) if window >= len(found)]
        whole = ({**WHOLE_SAMPLE}, media.modalities_in(None, None))
        return [*found, *[whole] * len(more)], [*numbers, *more], stored
    if not are_parts:
        return found, numbers, {0: stored[0]} if 0 in stored else {}
    first = max([len(found), *(window + 1 for window in done)])
    parts = {first + i: stored[window] for i, window in enumerate(sorted(stored))}
    nothing: Window = ({**WHOLE_SAMPLE}, set())
    return [*found, *[nothing] * len(parts)], [*numbers, *parts], parts


def match_by_times(
    rows: list[dict[str, Any]], stored: dict[int, Any], stored_times: StoredTimes, by_number: bool
) -> dict[int, Any]:
    """Finds the stored row with the times of each row.

    Args:
        rows: rows of the sample.
        stored: window of the other version -> position of its stored row.
        stored_times: times of the stored rows.
        by_number: rows without times are matched by window number. False: they have no stored row.

    Returns:
        window of ``rows`` -> position of its stored row.
    """
    by_times = {}
    for number, position in stored.items():
        start, end = stored_times.of(position["file"], position["position"])
        if start is not None or by_number:
            by_times[start, end, number if start is None else None] = position
    keys = [(row["start_s"], row["end_s"], row["window"] if row["start_s"] is None else None) for row in rows]
    matches = ((row["window"], by_times.get(key)) for row, key in zip(rows, keys, strict=True))
    return {number: position for number, position in matches if position is not None}


def match_by_cut(
    rows: list[dict[str, Any]], stored: dict[int, Any], stored_media: SampleMedia, window: WindowConfig
) -> dict[int, Any]:
    """Finds the stored row with the times of each row, where the other version read fewer modalities.

    Args:
        rows: rows of the sample.
        stored: window of the other version -> position of its stored row.
        stored_media: the media that the other version read.
        window: how a duration is cut, the same in both versions.

    Returns:
        window of ``rows`` -> position of its stored row.
    """
    try:
        found = stored_media.windows_with_media(cut_by_time(stored_media.last_span(), window))
    except SampleError:
        return {}
    by_times = {(times["start_s"], times["end_s"]): stored.get(number) for number, (times, _) in enumerate(found)}
    matches = ((row["window"], by_times.get((row["start_s"], row["end_s"]))) for row in rows)
    return {number: position for number, position in matches if position is not None}


def base_row(sample: dict[str, Any], media: SampleMedia) -> dict[str, Any]:
    """Returns the columns that all rows of a sample share."""
    base: dict[str, Any] = {name: sample[name] for name in ("sample_id", "source_version", "inline_text")}
    base |= {f"meter_{name}": 0.0 for name in METERS} | {"cells": 0, "final": False, "promised": 0}
    base["replaces"] = bool(sample.get("replaces"))
    base["text_timed"] = isinstance(media.spans.get("text"), Span)
    return base


def window_row(
    base: dict[str, Any],
    sample: dict[str, Any],
    media: SampleMedia,
    number: int,
    times: Times,
    present: set[Modality],
) -> dict[str, Any]:
    """Returns the row of one window: ``base``, its times, and the files of the modalities in ``present``."""
    uris = {f"{m}_uri": media.uris.get(m) if m in present else None for m in MODALITIES}
    inline = sample["inline_text"] if "text" in present and media.uris.get("text") is None else None
    if inline is not None and times["text_from"] is not None:
        inline = inline[times["text_from"] : times["text_to"]]
        times = {**times, "text_from": 0, "text_to": len(inline)}
    return {**base, **uris, **times, "inline_text": inline, "window": number}


def remaining_rows(rows: list[dict[str, Any]], done: frozenset[int], has_failures: bool) -> list[dict[str, Any]]:
    """Returns the rows that are still to be computed, and sets ``windows`` in all ``rows``.

    If none is left, it returns one row without media, which accounts for the sample or holds its failures.

    Args:
        rows: all rows of the sample.
        done: windows that are not computed.
        has_failures: the sample has failures to report.
    """
    for row in rows:
        row["windows"] = len(rows)
    left = [row for row in rows if row["window"] not in done]
    without_media = {
        "window": 0 if has_failures else -1,
        "carry_file": None,
        "carry_position": None,
        "inline_text": None,
        **{f"{modality}_uri": None for modality in MODALITIES},
    }
    return left or [{**rows[0], **without_media}]
