"""The webhook against real servers: what is posted, which URLs are called, and that nothing hangs or shows the URL."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import config as configs
from pipeline.config._explain import config_error
from pipeline.core.terminal import json_text
from pipeline.telemetry import webhook
from pipeline.telemetry.webhook import WebhookConfig, post
from tests.telemetry.servers import Answer, certificate, replies, server

SUMMARY = {
    "contract": 1,
    "night": "20260101T000000-abcd",
    "status": "failed",
    "exit_code": 4,
    "cause": "the disk is full <&> https://me:hunter22@host/x",
    "output": "s3://bucket/out",
    "samples_left": 3,
    "seconds": float("nan"),
}
PATH = "/hooks/T0/B0/s3cr3t-part?key=also-s3cr3t"
SECRET = "s3cr3t"


def call(port: int, scheme: str = "http", host: str = "127.0.0.1", limit_s: float = 5, **options: Any) -> str | None:
    config = WebhookConfig(url_env="NIGHT_HOOK", timeout_s=limit_s, **options)
    said = post(SUMMARY, config, {"NIGHT_HOOK": f"{scheme}://{host}:{port}{PATH}"})
    if said is not None:
        assert said.isprintable()
        assert SECRET not in said
        assert str(port) not in said
        assert host not in said
    return said


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "202 Accepted"])
def test_the_summary_is_posted(status: str) -> None:
    with server(replies(status)) as found:
        assert call(found.port) is None
    (request,) = found.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == f"post {PATH} http/1.1".lower()
    assert "content-type: application/json" in lines
    assert f"host: 127.0.0.1:{found.port}" in lines
    expected = {**SUMMARY, "seconds": None, "cause": "the disk is full <&> https://***@host/x"}
    assert json.loads(body) == expected


def test_slack_gets_a_text() -> None:
    with server(replies("200 OK")) as found:
        assert call(found.port, format="slack") is None
    body = json.loads(found.requests[0].partition(b"\r\n\r\n")[2])
    assert body["text"].splitlines() == [
        "Tessera: night failed, exit code 4",
        "cause: the disk is full &lt;&amp;&gt; https://***@host/x",
        "output: s3://bucket/out",
        "samples left: 3",
    ]
    assert list(body) == ["text"]
    long = post_text({**SUMMARY, "cause": "x" * 100_000})
    assert len(long) < 3000


def post_text(summary: dict[str, Any]) -> str:
    with server(replies("200 OK")) as found:
        config = WebhookConfig(url_env="HOOK", format="slack")
        assert post(summary, config, {"HOOK": f"http://127.0.0.1:{found.port}/"}) is None
    return found.requests[0].partition(b"\r\n\r\n")[2].decode()


def _closes(_: socket.socket) -> None:
    return


def _no_http(stream: socket.socket) -> None:
    stream.sendall(b"\x00\xff" * 100 + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (replies("500 Internal Server Error", body=SECRET.encode()), "the webhook answered 500"),
        (replies("404 Not Found"), "the webhook answered 404"),
        (replies("401 Unauthorized", "WWW-Authenticate: Basic realm=s3cr3t\r\n"), "the webhook answered 401"),
        (_closes, "the webhook could not be called: it closed the connection"),
        (_no_http, "the webhook could not be called: its answer is not HTTP"),
    ],
)
def test_answers_that_are_no_success(answer: Answer, words: str) -> None:
    with server(answer) as found:
        assert call(found.port) == words
    assert len(found.requests) == 1, "it is not called again"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Moved"])
def test_redirects_are_not_followed(status: str) -> None:
    with server(replies("200 OK")) as other:
        for target in (f"http://127.0.0.1:{other.port}/", "file:///etc/hostname", "ftp://127.0.0.1/", "/other"):
            with server(replies(status, f"Location: {target}\r\n")) as found:
                said = call(found.port)
            assert said == f"the webhook answered {status[:3]}, a redirect, which is not followed"
            assert len(found.requests) == 1
    assert other.requests == []


def _hangs(_: socket.socket) -> None:
    time.sleep(30)


def _drips(stream: socket.socket) -> None:
    """A byte of the header every tenth of a second, for ever: no operation on the socket times out."""
    stream.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        stream.sendall(b"x")
        time.sleep(0.1)


def _continues(stream: socket.socket) -> None:
    while True:
        stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.1)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("answer", [_hangs, _drips, _continues])
def test_slow_servers_take_no_longer_than_the_limit(
    answer: Answer, tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = certificate(tmp_path, "localhost") if tls else None
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
    started = time.monotonic()
    with server(answer, context) as found:
        said = call(found.port, "https" if tls else "http", "localhost", limit_s=1)
    assert said == "the webhook did not answer within 1 s"
    assert time.monotonic() - started < 3
    assert len(found.requests) == 1


def test_a_server_that_says_nothing_before_tls(tmp_path: Path) -> None:
    started = time.monotonic()
    with server(_hangs, read=False) as found:
        said = call(found.port, "https", limit_s=1)
    assert said == "the webhook did not answer within 1 s"
    assert time.monotonic() - started < 3


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def floods(stream: socket.socket) -> None:
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent.append(stream.send(b"x" * 65536))

    with server(floods) as found:
        assert call(found.port) is None
        time.sleep(0.2)
    assert sum(sent) < 50 << 20


def test_a_name_whose_resolution_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    started = time.monotonic()
    assert call(1, "https", "slow.example.org", limit_s=0.5) == "the webhook did not answer within 0.5 s"
    assert time.monotonic() - started < 2


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, wrong = certificate(tmp_path, "localhost"), certificate(tmp_path, "elsewhere.example.org")
    refused = "the webhook could not be called: its certificate is not valid for it, or this machine does not trust it"
    with server(replies("200 OK"), good) as found:
        assert call(found.port, "https", "localhost") == refused, "of an unknown authority"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
        assert call(found.port, "https", "localhost") is None
        assert call(found.port, "https", "127.0.0.1") == refused, "for another name"
    assert len(found.requests) == 1
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "elsewhere.example.org.pem"))
    with server(replies("200 OK"), wrong) as found:
        assert call(found.port, "https", "localhost") == refused
    with server(replies("200 OK"), read=False) as found:
        assert call(found.port, "https", "localhost") == "the webhook could not be called: no connection by TLS"


def test_http_is_for_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the addresses of the name, all of them; and the address that was checked is the one that is called."""
    refused = "the webhook was not called: NIGHT_HOOK holds an http URL of another machine; use https"
    with server(replies("200 OK")) as found:
        assert call(found.port, host="localhost") is None
        for host in ("192.0.2.1", "[2001:db8::1]", "0.0.0.0", "10.0.0.1", "169.254.169.254"):
            assert call(found.port, host=host) == refused
        real, answers = socket.getaddrinfo, [["127.0.0.1"], ["127.0.0.1", "192.0.2.1"], ["::ffff:127.0.0.1"]]
        asked = []

        def resolved(host: str, port: int, *args: Any, **more: Any) -> Any:
            if host != "hooks.example.org":
                return real(host, port, *args, **more)
            asked.append(host)
            return [(2, 1, 6, "", (address, port)) for address in answers[len(asked) - 1]]

        monkeypatch.setattr(socket, "getaddrinfo", resolved)
        assert call(found.port, host="hooks.example.org") is None
        assert call(found.port, host="hooks.example.org") == refused
        assert call(found.port, host="hooks.example.org") != refused, "an IPv4 address in IPv6"
    assert len(asked) == 3, "one look-up for each call"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "the environment variable NIGHT_HOOK is not set"),
        ("  ", "the environment variable NIGHT_HOOK is not set"),
        ("ftp://127.0.0.1/s3cr3t", "NIGHT_HOOK holds no https URL, nor an http URL on loopback"),
        ("file:///etc/s3cr3t", "NIGHT_HOOK holds no https URL"),
        ("s3cr3t", "NIGHT_HOOK holds no https URL"),
        ("https://", "NIGHT_HOOK holds no https URL"),
        ("https://[s3cr3t/", "NIGHT_HOOK holds no https URL"),
        ("https://host:s3cr3t/", "NIGHT_HOOK holds no https URL"),
        ("https://host:99999/", "NIGHT_HOOK holds no https URL"),
        ("https://h\u00f6st/s3cr3t", "NIGHT_HOOK holds no https URL"),
        ("https://host/s3cr3t\r\nX-Header: y", "NIGHT_HOOK holds no https URL"),
        ("https://host/s3cr3t x", "NIGHT_HOOK holds no https URL"),
        (f"https://host/{'x' * 5000}", "NIGHT_HOOK holds no https URL"),
        ("https://me:s3cr3t@host/", "the URL in NIGHT_HOOK has a user, which is not supported"),
    ],
)
def test_what_is_not_called(url: str | None, words: str) -> None:
    said = post(SUMMARY, WebhookConfig(url_env="NIGHT_HOOK"), {} if url is None else {"NIGHT_HOOK": url})
    assert said is not None
    assert said.startswith(f"the webhook was not called: {words}") or words in said
    assert SECRET not in said
    assert said.isprintable()


def test_servers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert call(port) == call(port, "https") == "the webhook could not be called: Connection refused"
    assert call(port, "https", "host.invalid") == "the webhook could not be called: its name cannot be resolved"


_REAL = socket.getaddrinfo


def _is_unknown(host: str, *args: Any, **more: Any) -> Any:
    if host.endswith("example.org"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _REAL(host, *args, **more)


def test_a_proxy_is_used_for_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # without the proxy: no name is asked for outside of this machine
    monkeypatch.setattr(socket, "getaddrinfo", _is_unknown)
    with server(replies("407 Proxy Authentication Required")) as proxy:
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "HOOK": f"https://hooks.example.org{PATH}"}
        config = WebhookConfig(url_env="HOOK", timeout_s=5)
        said = post(SUMMARY, config, environ)
        assert said == "the webhook could not be called: the proxy refused the connection"
        (request,) = proxy.requests
        assert request.startswith(b"CONNECT hooks.example.org:443 HTTP/1.")
        assert SECRET.encode() not in request
        for excepted in ("hooks.example.org", "a.org, .Example.org", "*"):
            assert post(SUMMARY, config, {**environ, "no_proxy": excepted}) != said
        with server(replies("200 OK")) as found:
            assert post(SUMMARY, config, {**environ, "HOOK": f"http://127.0.0.1:{found.port}/"}) is None
        assert len(proxy.requests) == 1


def test_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"https://host{PATH}")

    monkeypatch.setattr(webhook, "_send", broken)
    assert call(443, "https") == "the webhook could not be called: RuntimeError"
    monkeypatch.setattr(webhook, "json_text", broken)
    assert call(443, "https") == "the webhook could not be called: RuntimeError"


def test_a_signal_ends_the_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with server(_hangs) as found:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert call(found.port, limit_s=20) == "the call of the webhook was interrupted"
    assert time.monotonic() - started < 5


def test_the_config_never_holds_or_shows_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import ValidationError

    url = f"https://hooks.example.org{PATH}"
    for wrong in (url, "", "1X", "A-B", "x" * 200, 7, None):
        with pytest.raises(ValidationError) as caught:
            WebhookConfig.model_validate({"url_env": wrong})
        text = str(config_error(caught.value, {"url_env": wrong}))
        assert text == "url_env: what is there is not the name of a variable; the variable's name, not the URL itself"
    for limit in (0, -1, 121, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            WebhookConfig(url_env="X", timeout_s=limit)
    assert WebhookConfig(url_env="X") == WebhookConfig(url_env="X", timeout_s=10, format="json")
    assert configs.digest(WebhookConfig(url_env="X").model_dump()) != ""
    monkeypatch.setenv("NIGHT_WEBHOOK_URL", url)
    assert SECRET not in json_text({"cause": f"cannot reach {url}"}), "where the name of the variable says what it is"
