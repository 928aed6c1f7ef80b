"""Matches globs against relative paths: ``*`` and ``?`` within a name, ``**`` over folders, ``[...]``, ``{a,b}``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.core.errors import NotAllowed

MAGIC = re.compile(r"[*?\[{]")
_MAX_ALTERNATIVES = 1000
"""Maximum number of alternatives of one glob. The alternatives of several braces multiply."""
_MAX_RECURSIVE = 4
"""Maximum number of ``**`` in a glob. Matching time is the depth of a path to the power of this number."""


class Patterns:
    """A list of globs, matched against whole paths relative to a root, ``/`` between names.

    ``**`` matches any number of folders, also none. A glob whose last name has no wildcard also matches
    everything in a folder of that name: ``{images,videos}`` also means ``{images,videos}/**``.

    Raises:
        NotAllowed: a glob that cannot be read.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        plain = [alternative for glob in globs for alternative in expand(glob)]
        self.globs = [[name for name in glob.split("/") if name] for glob in plain]
        if any(names.count("**") > _MAX_RECURSIVE for names in self.globs):
            raise NotAllowed("a glob of many **", f"at most {_MAX_RECURSIVE}")
        parts = [_regex(names) for names in self.globs]
        self.whole = re.compile("|".join(parts) or r"(?!)", re.DOTALL)
        below = [_regex(names[:-1]) for names in self.globs if len(names) > 1 and names[-1] == "**"]
        self.folders = re.compile("|".join(below) or r"(?!)", re.DOTALL)

    def match(self, path: str) -> bool:
        """Returns whether one of the globs matches ``path``."""
        return self.whole.fullmatch(path) is not None

    def cover(self, folder: str) -> bool:
        """Returns whether every path inside ``folder`` matches."""
        return self.folders.fullmatch(folder) is not None or any(
            not MAGIC.search(names[-1]) and re.fullmatch(_regex(names), folder, re.DOTALL) for names in self.globs
        )

    def may_reach(self, folder: str) -> bool:
        """Returns whether a path inside ``folder`` can match."""
        return any(_reaches(names, folder.split("/")) for names in self.globs)


def expand(glob: str) -> list[str]:
    """Returns the alternatives of the braces in ``glob``, also nested ones. Braces without a comma are plain
    characters."""
    start = glob.find("{")
    while start >= 0:
        depth, cuts = 0, [start]
        for at in range(start, len(glob)):
            depth += {"{": 1, "}": -1}.get(glob[at], 0)
            if glob[at] == "," and depth == 1:
                cuts.append(at)
            if depth == 0:
                break
        if depth == 0 and len(cuts) > 1:
            ends = [*cuts[1:], at]
            inner = [glob[a + 1 : b] for a, b in zip(cuts, ends, strict=True)]
            found: list[str] = []
            for choice in inner:
                found += expand(glob[:start] + choice + glob[at + 1 :])
                if len(found) > _MAX_ALTERNATIVES:
                    raise NotAllowed("a glob of braces in braces", f"at most {_MAX_ALTERNATIVES} alternatives")
            return found
        start = glob.find("{", start + 1)
    return [glob]


def _regex(names: list[str]) -> str:
    """Returns the regular expression of a glob that is split into names."""
    text = ""
    for i, name in enumerate(names):
        last = i == len(names) - 1
        if name == "**":
            text += ".+" if last else "(?:[^/]+/)*"
        else:
            text += _name_regex(name) + ("" if last else "/")
    open_end = names and not MAGIC.search(names[-1])
    return f"(?:{text}(?:/.+)?)" if open_end else f"(?:{text})"


def _name_regex(name: str) -> str:
    """Returns the regular expression of one name of a glob.

    The text after a ``*`` is matched at its first occurrence only, without backtracking: only the last ``*`` must reach
    the end of the name.
    """
    pieces, at = [""], 0
    while at < len(name):
        char = name[at]
        close = name.find("]", at + 3 if name[at + 1 : at + 2] == "!" else at + 2) if char == "[" else -1
        if close > 0:
            inside = name[at + 1 : close].replace("\\", r"\\").replace("[", r"\[")
            negated = inside.startswith("!")
            pieces[-1] += f"(?!/)[{'^' if negated else ''}{inside[negated:].replace('^', chr(92) + '^')}]"
            at = close + 1
            continue
        if char == "*":
            pieces.append("")
        else:
            pieces[-1] += "[^/]" if char == "?" else re.escape(char)
        at += 1
    first, *inner = pieces
    text = first + "".join(f"(?>[^/]*?{piece})" for piece in inner[:-1] if piece)
    text += f"[^/]*{inner[-1]}" if inner else ""
    try:
        re.compile(text)
    except re.error as error:
        raise NotAllowed(f"the glob {name!r} cannot be read ({error})", "*, **, ?, [...] and {a,b}") from error
    return text


def _reaches(glob: list[str], folder: list[str]) -> bool:
    """Returns whether a path below ``folder`` can match ``glob``. Both are split into names."""
    for i, name in enumerate(folder):
        if i == len(glob):
            return not MAGIC.search(glob[-1])
        if glob[i] == "**":
            return True
        if not re.fullmatch(_name_regex(glob[i]), name, re.DOTALL):
            return False
    return True
