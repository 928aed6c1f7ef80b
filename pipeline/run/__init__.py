"""One extraction: prepare and check -> plan -> execute -> commit -> report.

preparation.py   a config whose output, features and cluster are checked
checks.py        what is checked before anything is computed
planning.py       the corpus's listing against the dataset; the work, in units
pipeline.py      the spec of what an engine runs
extraction.py    the run itself, from the lease to the commit
report.py        what a run did, for a machine and for a terminal
budget.py        the failure budget
fork_server.py   the process that checks a local run's features, and from which its workers fork

It imports everything but `benchmark`.
"""

from __future__ import annotations

from pipeline.run.extraction import extract, plan, planned_spec
from pipeline.run.preparation import prepare

__all__ = ["extract", "plan", "planned_spec", "prepare"]
