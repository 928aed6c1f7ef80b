"""One night: extract what has changed, vacuum, compact, and a summary for every outcome.

night.py        runs the steps of a night under a lease of its own
record.py       the summary of a night so far: written, completed, passed on
summary.py      the summary as plain values, and where it is kept
outcome.py      exit codes and advice: what to try again, and what will never work
lag.py          how many samples wait for their rows, and since when
alerts.py       too many failures, whatever the size of the night; a corpus that has moved
passing_on.py   lag, metrics and webhook, at the end of a night
_show.py        the summary on a terminal

It may import every package except `benchmark` and `demo`.
"""

from __future__ import annotations

from pipeline.nightly._show import show
from pipeline.nightly.night import Night
from pipeline.nightly.record import NightOptions, NightRecord
from pipeline.nightly.summary import local_path

__all__ = ["Night", "NightOptions", "NightRecord", "local_path", "show"]
