"""One extraction: prepare and check -> plan -> execute -> report -> check the failure budget -> commit.

After the commit the budget of the last run is checked, if that run was stopped before its own check was recorded. Only
then is an exceeded budget raised.

preparation.py   checks a config: output, features and cluster
checks.py        the checks before anything is computed
planning.py      compares the listing with the dataset; the work, in units
pipeline.py      the spec of what an engine runs
preview.py       what a run would do
extraction.py    the run itself, from the lease to the commit
_reuse.py        which columns a new version takes from the current one
_guards.py       what happens if a run breaks off or loses its lease
report.py        the report and the plan as plain values
_show.py         the report and the plan on a terminal
budget.py        the failure budget
doctor.py        checks all machines of a run, without computing
fork_server.py   the process that binds the features, and from which the workers of this machine fork
_binding_cache.py  what binding found, kept in the user's cache folder

It may import every package except `benchmark` and `demo`.
"""

from __future__ import annotations

from pipeline.run.extraction import extract
from pipeline.run.preparation import prepare
from pipeline.run.preview import plan, planned_machine, planned_spec

__all__ = ["extract", "plan", "planned_machine", "planned_spec", "prepare"]
