"""Characters that a terminal would execute or hide are escaped; visible ones are unchanged."""

from __future__ import annotations

import unicodedata

import pytest

from pipeline.core.escaping import escaped, one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mred\x1b[0m", r"a\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\x85\x7f\x00", r"\x9b31m\x85\x7f\x00"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("jpg.\u202egpj", r"jpg.\u202egpj"),
        ("\u2066a\u2069\u200e\u061c", r"\u2066a\u2069\u200e\u061c"),
        ("a\u200bb\u200dc\ufeff\u2060\u00ad", r"a\u200bb\u200dc\ufeff\u2060\xad"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("a\u3164b\u115fc\u2800d\u034f", r"a\u3164b\u115fc\u2800d\u034f"),
        ("\U000e0041\U000e007f", r"\U000e0041\U000e007f"),
        ("\ud83d", r"\ud83d"),
        ("caf\udce9.jpg", r"caf\xe9.jpg"),
        ("[red]x[/red] :smile:", "[red]x[/red] :smile:"),
        ("ä 日本\u3000語 \u00a0 🙂 e\u0301", "ä 日本\u3000語 \u00a0 🙂 e\u0301"),
        (r"C:\x1b", r"C:\x1b"),
        ("", ""),
    ],
)
def test_what_is_not_visible_is_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_no_character_gets_through_that_is_not_drawn() -> None:
    for number in range(0x110000):
        one = chr(number)
        if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"):
            assert escaped(one).isascii()
            assert escaped(one).isprintable()
        else:
            assert escaped(one) == one or escaped(one).startswith("\\u")


def test_one_line_joins_lines_and_bounds_them() -> None:
    assert one_line("a\n\n b\u2028c\td\x1b[1m", 100) == r"a b c d\x1b[1m"
    assert one_line("x" * 9999, 50) == "x" * 49 + "…"
    assert len(one_line("\x1b" * 9999, 50)) == 50
    assert one_line("ab" + " " * 500 + "cd", 50) == "ab cd"
