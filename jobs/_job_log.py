"""Follows the log of a job until it ends, also if the dashboard is away for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.core.errors import TesseraError, describe

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_PATIENCE_S = 60.0
"""For how long the dashboard is asked again when it does not answer."""
_IDLE_S = 120.0
"""After so long without a line the connection is opened again: it may be lost, and a run writes every 30 s."""
_EVERY_S = 1.0


def follow(client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> JobDetails:
    """Writes the log of a job until it ends, and returns what is known of it.

    Raises:
        TesseraError: the dashboard has not answered for a minute. The job may go on.
    """
    log, failing_since = _Log(client, job, write), None
    while True:
        with suppress(Exception):  # of Ray's client, `requests`, aiohttp; some proxies let no such connection through
            log.tail()
        try:
            details, failing_since = client.get_job_info(job), None
        except Exception as error:
            failing_since = failing_since or time.monotonic()
            if time.monotonic() - failing_since > _PATIENCE_S:
                words = f"the dashboard does not answer any more ({describe(error)}): job {job} may go on"
                raise TesseraError(f"{words}; see `tessera jobs status {job}`") from error
        else:
            log.catch_up()
            if details.status.is_terminal():
                return details
        time.sleep(_EVERY_S)


class _Log:
    """The log of a job, of which each character is written once."""

    def __init__(self, client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> None:
        self.client, self.job, self.write = client, job, write
        self.seen = 0
        """Characters that are written."""

    def tail(self) -> None:
        """Writes what comes, until the job ends or the connection does."""
        with asyncio.Runner() as runner:  # cancels what still waits, and closes the connection
            runner.run(self._tail())

    def catch_up(self) -> None:
        """Writes what a broken connection has left out."""
        with suppress(Exception):  # the log may be gone with its node: what came of it is written
            self._take(self.client.get_job_logs(self.job), 0)

    async def _tail(self) -> None:
        start, chunks = 0, self.client.tail_job_logs(self.job)
        while True:
            try:
                text = await asyncio.wait_for(anext(chunks), _IDLE_S)
            except (StopAsyncIteration, TimeoutError):
                return
            self._take(text, start)
            start += len(text)

    def _take(self, text: str, start: int) -> None:
        """Writes the new part of a piece of the log that begins at the character ``start``."""
        new = text[max(0, self.seen - start) :]
        if new:
            self.write(new)
            self.seen = start + len(text)
