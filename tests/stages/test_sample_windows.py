"""Windows of a retry and their stored rows: none is lost, and none is taken for another."""

from __future__ import annotations

from typing import Any

from pipeline.core.media import Span
from pipeline.stages._sample_media import SampleMedia
from pipeline.stages._sample_windows import WHOLE_SAMPLE, match_by_start, match_by_times, merge_stored

Spans = list[tuple[float, float] | None]


class Times:
    """Stands for `reuse.StoredTimes`: position -> times."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans

    def of(self, number: int, position: int) -> tuple[float | None, float | None]:
        return self.spans[position] or (None, None)


def stored(spans: Spans, windows: list[int] | None = None) -> tuple[dict[int, Any], Any]:
    numbers = windows or range(len(spans))
    return {n: {"window": n, "file": 0, "position": i} for i, n in enumerate(numbers)}, Times(spans)


def found(spans: Spans, *modalities: Any) -> list[Any]:
    cuts = [{**WHOLE_SAMPLE, "start_s": one[0], "end_s": one[1]} if one else {**WHOLE_SAMPLE} for one in spans]
    return [(cut, {*modalities}) for cut in cuts]


def merged(media: SampleMedia, windows: list[Any], spans: Spans, **options: Any) -> list[tuple[Any, int, Any]]:
    """(start, number, position of the stored row) of each window."""
    held, times = stored(spans, options.pop("windows", None))
    done = frozenset(options.pop("done", ()))
    made, numbers, reused = merge_stored(media, windows, held, done, times, options.pop("cuts_text", False))
    return [
        (one["start_s"], number, reused.get(number, {}).get("position"))
        for (one, _), number in zip(made, numbers, strict=True)
    ]


PICTURE = SampleMedia(spans={"image": None})
SOUND = SampleMedia(spans={"audio": Span(0.0, 3.0)})
SECONDS: Spans = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]


def test_windows_of_a_file_that_cannot_be_opened_stay() -> None:
    assert merged(PICTURE, found([None], "image"), SECONDS) == [(0.0, 0, 0), (1.0, 1, 1), (2.0, 2, 2)]


def test_a_row_without_times_is_that_of_the_first_window() -> None:
    assert merged(SOUND, found(SECONDS, "audio"), [None]) == [(0.0, 0, 0), (1.0, 1, None), (2.0, 2, None)]


def test_rows_with_and_without_times_stay() -> None:
    """As a retry of single windows leaves them."""
    mixed: Spans = [None, (1.0, 2.0), (2.0, 3.0)]
    nothing = SampleMedia(spans={})
    assert merged(nothing, found([None]), mixed) == [(None, 0, 0), (1.0, 1, 1), (2.0, 2, 2)]
    assert merged(SOUND, found(SECONDS, "audio"), mixed) == [(0.0, 0, 0), (1.0, 1, 1), (2.0, 2, 2)]


def test_parts_of_a_text_that_cannot_be_read_keep_rows() -> None:
    """The sound has times now, and the text that was cut by tokens is gone."""
    windows = found(SECONDS[:2], "audio")
    parts: Spans = [None, None, None]
    expected = [(0.0, 0, None), (1.0, 1, None), (None, 2, 0), (None, 3, 1), (None, 4, 2)]
    assert merged(SOUND, windows, parts, cuts_text=True) == expected
    readable = SampleMedia(spans={"audio": Span(0.0, 2.0), "text": None})
    assert merged(readable, windows, parts, cuts_text=True) == [(0.0, 0, 0), (1.0, 1, None)]


def test_stored_rows_are_found_by_their_start() -> None:
    """Numbers skip windows without media: when only the subtitles could be read, [5, 6) was window 1."""
    held, times = stored([(0.0, 1.0), (5.0, 6.0)])
    windows = found([(float(i), i + 1.0) for i in range(7)])
    assert {n: one["position"] for n, one in match_by_start(windows, held, times).items()} == {0: 0, 5: 1}
    held, times = stored([None, None])
    assert {n: one["position"] for n, one in match_by_start(found([None, None]), held, times).items()} == {0: 0, 1: 1}
    assert {n: one["position"] for n, one in match_by_start(windows, held, times).items()} == {0: 0}


def test_rows_without_times_are_matched_by_number_or_not_at_all() -> None:
    held, times = stored([None, None, (2.0, 3.0)])
    rows = [
        {"window": 0, "start_s": None, "end_s": None},
        {"window": 1, "start_s": None, "end_s": None},
        {"window": 2, "start_s": 2.0, "end_s": 3.0},
    ]
    by_number = match_by_times(rows, held, times, by_number=True)
    assert {n: one["position"] for n, one in by_number.items()} == {0: 0, 1: 1, 2: 2}
    assert [*match_by_times(rows, held, times, by_number=False)] == [2]
