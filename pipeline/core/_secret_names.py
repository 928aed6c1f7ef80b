"""Decides by their names, and by the shape of their values, which parameters and variables hold secrets."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

_VENDOR_NAMES = frozenset(
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
"""Parameters of pre-signed URLs, lower case, without those that contain one of ``_SECRET_WORDS``."""
_SECRET_WORDS = frozenset(
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
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("private", "key"), ("account", "key"), ("shared", "key")}
)
_BY_VALUE = ("sign", "key", "code")
"""Ordinary words that are also parameters with a secret (Tencent's signature, Google's key): the value decides."""
_PAGING_WORDS = frozenset({"page", "next", "continuation", "sync", "nextpage"})
"""Words of parameters such as ``next_token``, the position in a listing, which is not secret."""
KNOWN_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|"
    r"AIza[\w-]{35}|ya29\.[\w-]{20,}|sk-[\w-]{32,})"
)
"""Tokens of known services, recognized by their prefix."""
_SECRET_VARIABLE = re.compile(
    rb"(?:^|_)(?:SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|SAS|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|PRIVATE_KEY|SECRET_KEY|"
    rb"CONNECTION_STRING)(?:_|$)",
    re.IGNORECASE,
)
_WEBHOOK = re.compile(rb"(?:^|_)WEBHOOKS?(?:_URL)?(?:_|$)", re.IGNORECASE)
"""Names of variables whose URL is a secret: who knows it can post."""
_PLAIN_VARIABLE = re.compile(rb"(?:_ID|_FILE|_PATH|_URI|_URL|_DIR|_NAME|_EXPIRATION|_SOCK)$", re.IGNORECASE)


def is_secret_name(name: str, value: str = "", discord: bool = False) -> bool:
    """Returns whether a parameter of a URL holds a secret.

    Args:
        value: decides for names that are ordinary words.
        discord: the URL has the other parameters of Discord's signed URLs.
    """
    name = name.strip().lower() if name.isupper() else name.strip()
    if name.lower() in _VENDOR_NAMES:
        return True
    if name.lower() == "hm":  # Discord's signature; elsewhere an ordinary name
        return discord
    if name.lower() in _BY_VALUE:
        return bool(KNOWN_SHAPES.search(value)) or (name.lower() == "sign" and len(value) >= 16)
    words = _words(name)
    if words & _PAGING_WORDS and "token" in words:
        return False
    return (
        bool(words & _SECRET_WORDS)
        or name.lower().replace("-", "").replace("_", "") in _SECRET_WORDS
        or _has_secret_pair(name)
    )


@lru_cache(maxsize=4096)
def is_plain_name(name: str) -> bool:
    """Returns whether a parameter holds no secret, whatever its value is."""
    return name.lower() not in (*_BY_VALUE, "hm") and not is_secret_name(name)


@lru_cache(maxsize=4096)
def _words(name: str) -> frozenset[str]:
    """Returns the words of a name: ``next`` and ``token`` for ``next_token``, ``nextToken``, ``next[token]``."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return frozenset(re.split(r"[^a-z0-9]+", apart.lower()))


def _has_secret_pair(name: str) -> bool:
    """Returns whether two adjacent words of a name are one of ``_SECRET_PAIRS``."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())
    return any(pair in _SECRET_PAIRS for pair in pairwise(words))


@lru_cache(maxsize=4096)
def is_secret_variable(name: bytes) -> bool:
    """Returns whether an environment variable holds a secret."""
    is_plain = _PLAIN_VARIABLE.search(name)
    return bool(_WEBHOOK.search(name)) or (bool(_SECRET_VARIABLE.search(name)) and not is_plain)
