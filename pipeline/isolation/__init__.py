"""A stage in a process of its own, so that whatever native code does there costs one feature of one row.

isolated.py      what is tried again and what is blamed, after a death
child.py         the parent's side of the process: starts it, watches it, ends it
serve.py         the process itself: sets the stage up, then maps table after table
template.py      a process that has imported what these take, and from which they fork
process_tree.py  ends a process together with all that it started
beside.py        a stage in such a process, not for safety but for the imports that it spares
notes.py         what the process is at, noted where its death does not reach
parcels.py       tables in shared memory
limits.py        how long and how much
"""

from __future__ import annotations

from pipeline.decoders.limits import LimitsConfig
from pipeline.isolation.beside import Beside
from pipeline.isolation.isolated import Isolated
from pipeline.isolation.notes import Watch, Work, unwatched
from pipeline.isolation.template import Template

__all__ = ["Beside", "Isolated", "LimitsConfig", "Template", "Watch", "Work", "unwatched"]
