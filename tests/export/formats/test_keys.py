"""Names in a tar file: safe, and different for different rows."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.export.formats import keys

HOSTILE = (
    *("a", "A", "a/b", "a.b", "a%2Fb", "a%b", "..", "../../etc/passwd", "/etc/passwd", "a\nb", "a\\b", "C:\\x", "-rf"),
    *(
        "",
        " ",
        "å",
        "å",
        "日本",
        "\u202egnp.exe",
        "\x00",
        "a-w0",
        "a-w0-w0",
        "_a",
        "__key__",
        "con",
        "%",
        "%2",
        "a-w0-x1",
    ),
    *("x" * 500, "x" * 501, "x" * 1_000_000, "é" * 60, "é" * 61, "/" * 40, "/" * 41),
)
SAFE = re.compile(r"[A-Za-z0-9%][A-Za-z0-9%_-]*")


def test_hostile_ids() -> None:
    found = {keys.row_key(one.encode(), window) for one in HOSTILE for window in (0, 1, 10, 2**31 - 1, -1)}
    assert len(found) == 5 * len(set(HOSTILE))
    for name in found:
        assert SAFE.fullmatch(name), name
        assert len(name) <= keys.MAX_KEY


def test_known_keys() -> None:
    assert keys.row_key(b"cats/a.jpg", 0) == "cats%2Fa%2Ejpg-w0"
    assert keys.row_key(b"plain_name-1", 12) == "plain_name-1-w12"
    assert keys.row_key(b"-rf", 0) == "%2Drf-w0"
    assert keys.repeated_key("a-w0", 1) == "a-w0-x1"
    assert keys.member_name("photo_embedding") == "photo_embedding"
    assert keys.member_name("_x.y/z") == "%5Fx%2Ey%2Fz"


def test_no_text_has_the_name_of_a_longer_one() -> None:
    """Its name is known, and a text that is escaped to it would be another row's."""
    longer = keys.safe_name(b"x" * 500, 80)
    assert len(longer) == 80
    for text in (longer.encode(), re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), longer.encode())):
        assert keys.safe_name(text, 80) != longer


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=60), st.integers(-(2**31), 2**31 - 1)), min_size=2, max_size=8, unique=True)
)
def test_different_rows_have_different_keys(rows: list[tuple[bytes, int]]) -> None:
    found = [keys.row_key(*row) for row in rows]
    assert len(set(found)) == len(rows)
    assert len({keys.safe_name(text, 40) for text, _ in rows}) == len({text for text, _ in rows})
    assert all(SAFE.fullmatch(one) for one in found)
