"""Posts the summary of a night to a webhook.

The URL of a webhook is a secret. It comes from an environment variable and appears in no message, log or summary; nor
does its host, nor what the server or a library says.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator

import pipeline
from pipeline.core.errors import NotAllowed
from pipeline.core.redaction import without_secrets
from pipeline.core.section import Section
from pipeline.core.terminal import json_text
from pipeline.telemetry._time_limit import TimeLimit, limited

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_MAX_URL = 4096
_MAX_TEXT = 2000
"""Maximum characters of a text for Slack, which are more than it shows without a click."""
_SLACK_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class WebhookConfig(Section):
    """Where the summary of a night is posted when it fails."""

    url_env: str
    """Name of the environment variable that holds the URL: https, or http on loopback."""
    timeout_s: float = Field(default=10.0, gt=0, le=120)
    """Seconds for the whole call."""
    format: Literal["json", "slack"] = "json"

    @field_validator("url_env", mode="before")
    @classmethod
    def _is_a_name(cls, value: object) -> object:
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            # the value is not repeated: it may be the URL
            raise NotAllowed("what is there is not the name of a variable", "the variable's name, not the URL itself")
        return value


class _Refused(Exception):
    """The call is not made, or its answer is not good. The message has no part of the URL."""


def post(summary: Mapping[str, Any], config: WebhookConfig, environ: Mapping[str, str] = os.environ) -> str | None:
    """Posts ``summary`` as JSON. Raises nothing, and takes at most ``config.timeout_s`` seconds.

    Redirects are not followed. The body of the answer is not read. A signal ends the call, and nothing else: the
    command has its exit code already.

    Args:
        summary: plain values. Secrets are replaced by ``***``.
        config: the section of the config.
        environ: has the URL, and may have ``HTTPS_PROXY`` and ``NO_PROXY``.

    Returns:
        None if the webhook accepted it; otherwise one line that says what went wrong, without the URL.
    """
    try:
        url = _checked_url(environ.get(config.url_env, ""), config.url_env)
        body = _body(summary, config.format).encode()
        limited(lambda: _send(url, body, config, environ), config.timeout_s, "tessera-webhook")
    except _Refused as error:
        return str(error)
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, TimeLimit | TimeoutError):
            return f"the webhook did not answer within {config.timeout_s:g} s"
        return f"the webhook could not be called: {_reason(cause)}"
    except BaseException:  # SIGTERM or Ctrl-C
        return "the call of the webhook was interrupted"
    return None


def _body(summary: Mapping[str, Any], format: str) -> str:
    if format == "json":
        return json_text(summary)
    parts = [f"Tessera: night {summary.get('status')}, exit code {summary.get('exit_code')}"]
    for name in ("cause", "advice", "step", "output", "config", "host", "run_id", "samples_left"):
        if summary.get(name):
            parts.append(f"{name.replace('_', ' ')}: {summary[name]}")
    parts[2:2] = [f"alert: {one}" for one in summary.get("alerts", ())]
    text = without_secrets("\n".join(parts))
    return json_text({"text": text[:_MAX_TEXT].translate(_SLACK_ESCAPES)})


def _checked_url(text: str, variable: str) -> SplitResult:
    """Returns the parts of a URL of an allowed scheme. Raises `_Refused`."""
    text = text.strip()
    if not text:
        raise _Refused(f"the webhook was not called: the environment variable {variable} is not set")
    refused = _Refused(f"the webhook was not called: {variable} holds no https URL, nor an http URL on loopback")
    if len(text) > _MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise refused
    try:
        url = urlsplit(text)
        is_url = url.scheme in ("https", "http") and bool(url.hostname) and url.port != 0
    except ValueError:
        raise refused from None
    if not is_url:
        raise refused
    if url.username is not None:
        raise _Refused(f"the webhook was not called: the URL in {variable} has a user, which is not supported")
    return url


def _send(url: SplitResult, body: bytes, config: WebhookConfig, environ: Mapping[str, str]) -> None:
    """Sends the request. Raises `_Refused` for any answer but success, and the errors of the network."""
    request = urllib.request.Request(
        url.geturl(),
        data=body,
        headers={"Content-Type": "application/json", "User-Agent": f"tessera/{pipeline.__version__}"},
        method="POST",
    )
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(_proxies(url, environ)),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _LoopbackHandler(config.url_env),
        _NoRedirect(),
    )
    try:
        opener.open(request, timeout=config.timeout_s).close()
    except urllib.error.HTTPError as error:
        error.close()
        is_redirect = "Location" in error.headers and 300 <= error.code < 400
        more = ", a redirect, which is not followed" if is_redirect else ""
        raise _Refused(f"the webhook answered {error.code}{more}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects as errors. The summary would go to another place than the URL's."""

    def redirect_request(self, *_: object) -> None:
        return None


class _LoopbackHandler(urllib.request.HTTPHandler):
    """Opens http URLs, if all addresses of their host are on loopback.

    Args:
        variable: name of the environment variable, for the error.
    """

    def __init__(self, variable: str) -> None:
        super().__init__()
        self.variable = variable

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        variable = self.variable

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
                addresses = [str(one[4][0]) for one in found]
                if not all(map(_is_loopback, addresses)):
                    raise _Refused(
                        f"the webhook was not called: {variable} holds an http URL of another machine; use https"
                    )
                # the address that was checked: a second look-up may give another one
                self.sock = socket.create_connection((addresses[0], self.port), self.timeout)

        return self.do_open(Connection, request)


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _proxies(url: SplitResult, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the proxy for ``url``, as `urllib` takes it: none for http, which stays on this machine."""
    proxy = environ.get("https_proxy") or environ.get("HTTPS_PROXY")
    excepted = [
        one.strip().lstrip(".") for one in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")
    ]
    is_direct = any(one == "*" or (one and f".{url.hostname}".endswith(f".{one.lower()}")) for one in excepted)
    return {"https": proxy} if proxy and url.scheme == "https" and not is_direct else {}


def _cause(error: BaseException) -> BaseException:
    """Returns the error of the network in an error of `urllib`."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return error.reason
    return error


def _reason(error: BaseException) -> str:
    """Returns what an error of the network is, in words that have no part of the URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not valid for it, or this machine does not trust it"
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    if str(error).startswith("Tunnel connection failed"):
        return "the proxy refused the connection"
    return type(error).__name__


_REASONS: dict[type[BaseException], str] = {
    socket.gaierror: "its name cannot be resolved",
    ssl.SSLError: "no connection by TLS",
    http.client.RemoteDisconnected: "it closed the connection",
    http.client.HTTPException: "its answer is not HTTP",
}
