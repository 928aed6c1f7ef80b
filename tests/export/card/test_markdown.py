"""Untrusted text in Markdown is shown as it is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.core.errors import one_line
from pipeline.export.card._markdown import code, plain, table

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _cells(text: str) -> list[str]:
    """Returns the text of the cells; fails if a parser finds anything else in them."""
    found = []
    for token in PARSER.parse(text):
        if token.type == "inline":
            assert {one.type for one in token.children or []} <= {"text", "code_inline", "text_special"}, token
            found.append("".join(one.content for one in token.children or []))
    return found


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("`|\\<>[]()!*_#~&;:@$-+.\n\t ab"), st.characters()), max_size=30))
def test_any_text(text: str) -> None:
    line = one_line(text, 300)
    expected = " ".join(line.split())
    for written in (plain(line), code(line)):
        assert [" ".join(one.split()) for one in _cells(table(["h", "x"], [[written, "end"]]))] == [
            "h",
            "x",
            expected,
            "end",
        ]


def test_names_are_code() -> None:
    assert code("openai/clip-vit_b") == "`openai/clip-vit_b`"
    assert code("list<element: float>[3]") == "`list<element: float>[3]`"
    assert code("") == ""
    assert code("a|b") == r"a\|b"
    assert code("a`b") == r"a\`b"
    assert plain("1. x, y") == r"1\. x, y"
