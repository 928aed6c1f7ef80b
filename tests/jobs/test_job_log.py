"""The log of a job is written once and whole, whatever happens to the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import _job_log
from pipeline.core.errors import TesseraError

LOG = "one\ntwo\nthree\nfour\n"


class Client:
    """Ray's client of a job. Each connection brings the log from its beginning, up to its own limit, and then ends as
    it says."""

    def __init__(self, connections: list[tuple[int, Exception | None]], answers: list[Any]) -> None:
        self.connections, self.answers = connections, answers

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        limit, error = self.connections.pop(0) if self.connections else (0, ConnectionError("gone"))
        for start in range(0, limit, 3):
            yield LOG[:limit][start : start + 3]
        if error is not None:
            raise error

    def get_job_info(self, job: str) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(status=SimpleNamespace(is_terminal=lambda: answer))

    def get_job_logs(self, job: str) -> str:
        return LOG


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_job_log, "_EVERY_S", 0.01)
    monkeypatch.setattr(_job_log, "_PATIENCE_S", 0.3)


def _followed(client: Any) -> str:
    written: list[str] = []
    _job_log.follow(client, "job", written.append)
    return "".join(written)


@pytest.mark.parametrize(
    "connections",
    [
        [(len(LOG), None)],
        [(7, None), (len(LOG), None)],
        [(4, ConnectionResetError()), (1, OSError("proxy")), (12, RuntimeError("closed"))],
        [(0, ValueError("no websocket here"))] * 3,
    ],
)
def test_each_character_is_written_once(connections: list[tuple[int, Exception | None]]) -> None:
    answers: list[Any] = [*[False] * (len(connections) - 1), True]
    assert _followed(Client(list(connections), answers)) == LOG


def test_the_dashboard_may_be_away_for_a_while() -> None:
    assert _followed(Client([(4, None)], [ConnectionError("away")] * 5 + [True])) == LOG


def test_a_dashboard_that_stays_away() -> None:
    with pytest.raises(TesseraError, match=r"does not answer any more \(ConnectionError: away\): job job may go on"):
        _followed(Client([(4, None)], [ConnectionError("away")]))


def test_a_connection_that_brings_nothing_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_job_log, "_IDLE_S", 0.05)

    class Silent(Client):
        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            import asyncio

            yield LOG[:5]
            if self.connections.pop(0)[0] == 0:
                await asyncio.sleep(60)
            yield LOG[5:]

    assert _followed(Silent([(0, None), (1, None)], [False, True])) == LOG
