"""Detects secrets in URLs and texts, and removes them.

URLs are written to records, reports and messages, so that configs and manifests must not contain a URL with a secret.
Messages of other libraries may contain secrets, which are replaced by ``***``.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote, unquote_plus

from pipeline.core._secret_names import KNOWN_SHAPES, is_plain_name, is_secret_name, is_secret_variable

HIDDEN = "***"
_MAX_URL = 1 << 16
"""Characters of a URL that are examined together; longer ones are examined in pieces."""
_MAX_DEPTH = 3
"""Maximum nesting of URLs in parameters of URLs."""

_TOKEN_USER_SCHEMES = re.compile(r"(?:^|\+)(?:https?|ftps?|webdavs?|davs?|wss?)$", re.IGNORECASE)
"""Schemes in which a user without a password may be a token. In ``abfs://container@account`` it is not."""
_NO_USER_SCHEMES = frozenset({"github", "git", "file", "local"})
"""Schemes without users: in ``github://owner:repository@commit`` nothing is secret."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}):/{2,}", re.IGNORECASE)
_PLAIN_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}://(?!objectstorage\.)[^/@:?#\\\s]+/", re.IGNORECASE)
"""A URL without a user: the fast path for manifests, which have millions of such URLs."""
_NAME = re.compile(r"[?&;#]([^=?&;#\s]{1,200})=")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=?&;#\s]{1,200})=([^&;#\s]*)")
_ORACLE_PATH = re.compile(r"(//objectstorage\.[^/]*oraclecloud\.com/p/)([^/]+)(?=/)", re.IGNORECASE)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,4096}+\.[\w-]{8,4096}+\.[\w-]*+")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)
_HEADER = re.compile(
    r"""((?:proxy-)?authorization["']?\s*[:=]\s*["']?)(?!\*\*\*)((?:(?:basic|bearer|token|digest|negotiate|aws|oss|"""
    r"""sharedkey|aws4-hmac-sha256|goog4-rsa-sha256)\s+)?)([^"'\r\n]+)""",
    re.IGNORECASE,
)
_PAIR = re.compile(
    r"""\b((?:[\w-]{0,40}[_-])?(?:secret(?:[_-]?access)?[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|"""
    r"""shared[_-]?key|api[_-]?key|client[_-]?secret|app[_-]?secret|secret|passwd|password|passphrase|"""
    r"""(?:session|access|auth|refresh|security|sas|bearer|id)[_-]?token))(["']?\s*[:=]\s*)"""
    r"""("(?:[^"\\]|\\.)+"|'(?:[^'\\]|\\.)+'|[^\s"',;&)}\]]+)""",
    re.IGNORECASE,
)
_BASIC_OR_BEARER = re.compile(r"\b(bearer|basic)\s+([\w.~+/=-]{16,})", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}:/{2,}[^\s\"<>`|]+", re.IGNORECASE)
_IS_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,30}:/{2,}\S+\s*", re.IGNORECASE)
_PUNCTUATION = "'),.;:]}"
"""Characters at the end of a URL in a text that belong to the text."""
_MAY_HOLD_SECRET = re.compile(
    "secret|passw|passphrase|token|key|authorization|signature|bearer|basic|eyJ|hf_|gh[pousr]_|github_|glpat|xox|AIza|"
    "ya29|sk-",
    re.IGNORECASE,
)
"""Matches every text that one of the patterns above matches; a single search is fast."""
_SECRET_IN_NAME = re.compile("PASS|PWD|SECRET|CREDENTIAL|AUTH|TOKEN(?!IZER)|KEY(?!_ID)|WEBHOOK", re.IGNORECASE)
_MIN_SECRET = 8
"""Minimum length of an environment variable's value that is treated as a secret."""


def has_secret(url: str) -> bool:
    """Returns whether a URL, or a chain of URLs, contains a password, a token or a signature.

    A text without a URL has no secret, whatever it contains.
    """
    if "://" not in url:
        return False
    if len(url) > _MAX_URL:
        step = _MAX_URL // 2
        return any(has_secret(f"x://x/?{url[i : i + _MAX_URL - 7]}") for i in range(0, len(url), step))
    plain = _PLAIN_URL.match(url)
    is_simple = plain is not None and url.find("://", plain.end()) < 0 and "%" not in url and "eyJ" not in url
    if is_simple and ("=" not in url or all(map(is_plain_name, _NAME.findall(url)))):
        return False
    return without_secrets_of_url(url) != url


def is_url_with_secret(text: str) -> bool:
    """Returns whether the whole text is a URL with a secret. A sentence that contains such a URL is not."""
    return "://" in text and _IS_URL.fullmatch(text) is not None and has_secret(text)


def is_secret_assignment(name: str, value: str) -> bool:
    """Returns whether an environment variable may hold a secret: by its name, or by its value. Rather too many."""
    return bool(_SECRET_IN_NAME.search(name)) or is_secret_name(name) or without_secrets(value) != value


def without_secrets(text: str) -> str:
    """Returns ``text`` with ``***`` in place of secrets: those in URLs, headers and ``name=value`` pairs, and the
    values of secret environment variables."""
    for secret in _environment_secrets():
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _URL.sub(_clean_url, text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(HIDDEN, text)
    if not _MAY_HOLD_SECRET.search(text):
        return text
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = _PAIR.sub(_hide_pair, text)
    text = _BASIC_OR_BEARER.sub(rf"\1 {HIDDEN}", text)
    return KNOWN_SHAPES.sub(HIDDEN, _JWT.sub(HIDDEN, text))


def _clean_url(found: re.Match[str]) -> str:
    """Returns a URL that was found in a text without its secrets. Punctuation at its end is not part of it."""
    url = found[0].rstrip(_PUNCTUATION)
    return without_secrets_of_url(url) + found[0][len(url) :]


def without_secrets_of_url(url: str, depth: int = _MAX_DEPTH) -> str:
    """Returns ``url`` with ``***`` in place of each secret, also in the URLs that it contains.

    Args:
        depth: maximum nesting of URLs in parameters.
    """
    if "@" in url:
        starts = [found.start() for found in _SCHEME.finditer(url)]
        pieces = [url[start:end] for start, end in zip([0, *starts], [*starts, None], strict=True)]
        url = "".join(map(_hide_user, pieces))
    if "=" in url:
        discord = "ex=" in url and "is=" in url
        url = _PARAMETER.sub(lambda found: _hide_parameter(found[1], found[2], discord, depth), url)
    if "oraclecloud" in url.lower():
        url = _ORACLE_PATH.sub(rf"\g<1>{HIDDEN}", url)
    return _JWT.sub(HIDDEN, url) if "eyJ" in url else url


def _hide_user(url: str) -> str:
    """Returns ``url`` with ``***`` in place of a user with a password, or of a token in its place."""
    found = _SCHEME.match(url)
    if found is None or "@" not in url:
        return url
    scheme, start = found[1].lower(), found.end()
    authority = re.split(r"[/?#\\]", url[start:], maxsplit=1)[0]
    if scheme.rsplit("+", 1)[-1] in _NO_USER_SCHEMES:
        return url
    user, at, _ = authority.rpartition("@")
    if not at:  # the password contains a slash: what looks like a port is its beginning
        host, colon, port = authority.rpartition(":")
        if not colon or host.endswith("]") or not port or port.isdecimal():
            return url
        user = url[start:].rpartition("@")[0]
    elif user.partition(":")[2] == "" and (not user.strip(":") or not _TOKEN_USER_SCHEMES.search(scheme)):
        return url
    return url if user == HIDDEN else f"{url[:start]}{HIDDEN}{url[start + len(user) :]}"


def _hide_parameter(name: str, value: str, discord: bool, depth: int) -> str:
    """Returns a parameter of a URL with its secret hidden, or without the secrets of a URL in it."""
    whole = f"{name}={value}"
    if value in ("", HIDDEN):
        return whole
    if is_secret_name(unquote_plus(name), value, discord):
        return f"{name}={HIDDEN}"
    if depth and "%" in value:
        inner = unquote(value)
        if "://" in inner or "%3a%2f" in inner.lower():
            cleaned = without_secrets_of_url(inner, depth - 1)
            return whole if cleaned == inner else f"{name}={quote(cleaned, safe='*')}"
    elif depth and "://" in value:
        return f"{name}={without_secrets_of_url(value, depth - 1)}"
    return whole


def _hide_pair(found: re.Match[str]) -> str:
    """Returns a pair such as ``password=value`` with its value hidden."""
    value = found[3]
    bare = value[1:-1] if value[0] in "\"'" else value
    if bare in ("", HIDDEN, "None", "null", "True", "False"):
        return found[0]
    mark = value[0] if value[0] in "\"'" else ""
    return f"{found[1]}{found[2]}{mark}{HIDDEN}{mark}"


def _environment_secrets() -> list[str]:
    """Returns the values of secret environment variables, plain and percent-encoded, the longest first."""
    values = {os.fsdecode(value) for name, value in os.environb.items() if is_secret_variable(name)}
    found = {one for one in values if len(one) >= _MIN_SECRET and not (os.path.isabs(one) and os.path.exists(one))}
    return (
        sorted(found | {quote(one, safe="", errors="replace") for one in found}, key=len, reverse=True) if found else []
    )
