"""Secrets in URLs and in texts: whether there is one, and the same text without it.

The one place that decides. A URL with a secret in it would get into records, reports and messages, so that configs and
manifests must not hold one; and what other libraries say in their errors is cleaned of them.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from itertools import pairwise
from urllib.parse import quote, unquote, unquote_plus

HIDDEN = "***"
_LONGEST = 1 << 16
_DEPTH = 3
"""URLs inside a parameter of a URL, whose own parameters may be URLs."""

_VENDORS = frozenset(
    {
        *(
            "x-amz-signature",
            "x-amz-security-token",
            "x-amz-credential",
            "x-amz-s3session-token",
            "awsaccesskeyid",
        ),  # AWS
        *("x-goog-signature", "x-goog-credential", "googleaccessid"),  # Google Cloud Storage
        *("sig",),  # Azure: a shared access signature
        *("ossaccesskeyid", "x-oss-signature", "x-oss-security-token", "x-oss-credential"),  # Alibaba OSS
        *("q-signature", "q-ak", "x-cos-security-token"),  # Tencent COS
        *("x-obs-security-token", "x-obs-signature"),  # Huawei OBS
        *("x-tos-signature", "x-tos-security-token", "x-tos-credential"),  # Volcengine TOS
        *("x-bce-security-token", "kssaccesskeyid", "access_key_id"),  # Baidu, Kingsoft, QingStor
        *("temp_url_sig",),  # OpenStack Swift
        *("delegation",),  # WebHDFS
        *("hdnts", "hdnea", "hdntl", "__token__", "__gda__", "_upt"),  # Akamai, Upyun
        *("rlkey", "authkey", "tempauth"),  # Dropbox, OneDrive, SharePoint
        *("jsessionid", "phpsessid"),
    }
)
"""Parameters of pre-signed URLs, lower case. What their names say already (signature, token...) is in ``_WORDS``."""
_WORDS = frozenset(
    {
        *(
            "secret",
            "token",
            "signature",
            "sig",
            "password",
            "passwd",
            "passphrase",
            "pwd",
            "credential",
            "credentials",
        ),
        *("auth", "authorization", "apikey", "accesskey", "secretkey", "privatekey", "accountkey", "sharedkey"),
        *("jwt", "bearer", "hmac"),
    }
)
_PAIRS = frozenset({("api", "key"), ("access", "key"), ("private", "key"), ("account", "key"), ("shared", "key")})
_BY_VALUE = ("sign", "key", "code")
"""Tencent's and others' signature, Google's key; and ordinary words."""
_OF_PAGES = frozenset({"page", "next", "continuation", "sync", "nextpage"})
"""``next_token`` says where a listing goes on; it opens nothing."""
_USERS_HIDE = re.compile(r"(?:^|\+)(?:https?|ftps?|webdavs?|davs?|wss?)$", re.IGNORECASE)
"""Schemes of which a user without a password may be a token. In ``abfs://container@account`` it is none."""
_NOT_USERS = frozenset({"github", "git", "file", "local"})
"""``github://owner:repository@commit`` is a place."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}):/{2,}", re.IGNORECASE)
_PLAIN = re.compile(r"[a-z][a-z0-9+.-]{0,30}://(?!objectstorage\.)[^/@:?#\\\s]+/", re.IGNORECASE)
"""No user in it. A manifest has millions of such URLs."""
_NAME = re.compile(r"[?&;#]([^=?&;#\s]{1,200})=")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=?&;#\s]{1,200})=([^&;#\s]*)")
_IN_PATH = re.compile(r"(//objectstorage\.[^/]*oraclecloud\.com/p/)([^/]+)(?=/)", re.IGNORECASE)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,4096}+\.[\w-]{8,4096}+\.[\w-]*+")
_KNOWN_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|"
    r"AIza[\w-]{35}|ya29\.[\w-]{20,}|sk-[\w-]{32,})"
)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)
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
_AFTER_URL = "'),.;:]}"
_MAY_HOLD = re.compile(
    "secret|passw|passphrase|token|key|authorization|signature|bearer|basic|eyJ|hf_|gh[pousr]_|github_|glpat|xox|AIza|"
    "ya29|sk-",
    re.IGNORECASE,
)
"""What the patterns above begin with or hold."""
_SECRET_VARIABLE = re.compile(
    rb"(?:^|_)(?:SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|SAS|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|PRIVATE_KEY|SECRET_KEY|"
    rb"CONNECTION_STRING)(?:_|$)",
    re.IGNORECASE,
)
_NO_SECRET_VARIABLE = re.compile(rb"(?:_ID|_FILE|_PATH|_URI|_URL|_DIR|_NAME|_EXPIRATION|_SOCK)$", re.IGNORECASE)
_SHORTEST = 8


def has_secret(url: str) -> bool:
    """True for a URL, or a chain of them, that holds a password, a token or a signature.

    Texts that hold no URL hold no secret, whatever they say.
    """
    if "://" not in url:
        return False
    if len(url) > _LONGEST:
        step = _LONGEST // 2
        return any(has_secret(f"x://x/?{url[i : i + _LONGEST - 7]}") for i in range(0, len(url), step))
    plain = _PLAIN.match(url)
    alone = plain is not None and url.find("://", plain.end()) < 0 and "%" not in url and "eyJ" not in url
    if alone and ("=" not in url or all(map(_is_plain_name, _NAME.findall(url)))):
        return False
    return without_secrets_of_url(url) != url


def is_url_with_secret(text: str) -> bool:
    """True for a text that is nothing but a URL, and holds a secret. Words that mention one are none."""
    return "://" in text and _IS_URL.fullmatch(text) is not None and has_secret(text)


def without_secrets(text: str) -> str:
    """``text`` without the secrets of the URLs, headers and ``name=value`` pairs in it, and without the values of
    this process's secret environment variables."""
    for secret in _of_environment():
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _URL.sub(_cleaned, text)
    if "PRIVATE KEY" in text:
        text = _KEY.sub(HIDDEN, text)
    if not _MAY_HOLD.search(text):
        return text
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = _PAIR.sub(_hidden_pair, text)
    text = _BASIC_OR_BEARER.sub(rf"\1 {HIDDEN}", text)
    return _KNOWN_SHAPES.sub(HIDDEN, _JWT.sub(HIDDEN, text))


def _cleaned(found: re.Match[str]) -> str:
    url = found[0].rstrip(_AFTER_URL)
    return without_secrets_of_url(url) + found[0][len(url) :]


def without_secrets_of_url(url: str, depth: int = _DEPTH) -> str:
    """``url`` with ``***`` in the place of each secret, those of every URL in it."""
    if "@" in url:
        starts = [found.start() for found in _SCHEME.finditer(url)]
        pieces = [url[start:end] for start, end in zip([0, *starts], [*starts, None], strict=True)]
        url = "".join(map(_without_user, pieces))
    if "=" in url:
        discord = "ex=" in url and "is=" in url
        url = _PARAMETER.sub(lambda found: _parameter(found[1], found[2], discord, depth), url)
    if "oraclecloud" in url.lower():
        url = _IN_PATH.sub(rf"\g<1>{HIDDEN}", url)
    return _JWT.sub(HIDDEN, url) if "eyJ" in url else url


def _without_user(url: str) -> str:
    found = _SCHEME.match(url)
    if found is None or "@" not in url:
        return url
    scheme, start = found[1].lower(), found.end()
    authority = re.split(r"[/?#\\]", url[start:], maxsplit=1)[0]
    if scheme.rsplit("+", 1)[-1] in _NOT_USERS:
        return url
    user, at, _ = authority.rpartition("@")
    if not at:  # a slash in the password, which is not the port then
        host, colon, port = authority.rpartition(":")
        if not colon or host.endswith("]") or not port or port.isdecimal():
            return url
        user = url[start:].rpartition("@")[0]
    elif user.partition(":")[2] == "" and (not user.strip(":") or not _USERS_HIDE.search(scheme)):
        return url
    return url if user == HIDDEN else f"{url[:start]}{HIDDEN}{url[start + len(user) :]}"


def _parameter(name: str, value: str, discord: bool, depth: int) -> str:
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


def is_secret_name(name: str, value: str = "", discord: bool = False) -> bool:
    """Whether the parameter ``name`` of a URL holds a secret, by the vendors' names and by the words in it."""
    name = name.strip().lower() if name.isupper() else name.strip()
    if name.lower() in _VENDORS:
        return True
    if name.lower() == "hm":  # Discord's signature, and any other's name
        return discord
    if name.lower() in _BY_VALUE:
        return bool(_KNOWN_SHAPES.search(value)) or (name.lower() == "sign" and len(value) >= 16)
    words = _words(name)
    if words & _OF_PAGES and "token" in words:
        return False
    return bool(words & _WORDS) or name.lower().replace("-", "").replace("_", "") in _WORDS or _has_pair(name)


@lru_cache(maxsize=4096)
def _is_plain_name(name: str) -> bool:
    return name.lower() not in (*_BY_VALUE, "hm") and not is_secret_name(name)


@lru_cache(maxsize=4096)
def _words(name: str) -> frozenset[str]:
    """Of ``next_token``, ``nextToken``, ``X-Next-Token``, ``auth[token]``: next, token."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return frozenset(re.split(r"[^a-z0-9]+", apart.lower()))


def _has_pair(name: str) -> bool:
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())
    return any(pair in _PAIRS for pair in pairwise(words))


def _hidden_pair(found: re.Match[str]) -> str:
    value = found[3]
    bare = value[1:-1] if value[0] in "\"'" else value
    if bare in ("", HIDDEN, "None", "null", "True", "False"):
        return found[0]
    mark = value[0] if value[0] in "\"'" else ""
    return f"{found[1]}{found[2]}{mark}{HIDDEN}{mark}"


def _of_environment() -> list[str]:
    """Values of the variables that hold secrets, the longest first, as they are and as URLs write them."""
    values = {os.fsdecode(value) for name, value in os.environb.items() if _is_secret_variable(name)}
    found = {one for one in values if len(one) >= _SHORTEST and not (os.path.isabs(one) and os.path.exists(one))}
    return (
        sorted(found | {quote(one, safe="", errors="replace") for one in found}, key=len, reverse=True) if found else []
    )


@lru_cache(maxsize=4096)
def _is_secret_variable(name: bytes) -> bool:
    return bool(_SECRET_VARIABLE.search(name)) and not _NO_SECRET_VARIABLE.search(name)
