"""Plans a run: compares the listing of the corpus with the dataset, and writes the work as files.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import sources, storage
from pipeline.config.bound import roles_to_open, wanted
from pipeline.config.models import PipelineConfig
from pipeline.core.errors import SampleError
from pipeline.core.media import Modality
from pipeline.core.schema import ROLES
from pipeline.dataset.diff.difference import compare
from pipeline.dataset.diff.result import Difference, DuplicateIdError
from pipeline.stages.units import Unit, read_places, unit_name, unit_rows
from pipeline.storage.roots import AllowedRoots


@dataclass
class Plan:
    """What a run is to do. The samples themselves are in files, divided into units of one task each."""

    difference: Difference = field(default_factory=Difference)
    units: list[Unit] = field(default_factory=list)
    samples_by_role: dict[str, int] = field(default_factory=dict)
    """Role -> files of that role among the samples to extract."""
    unused: int = 0
    """Listed samples without anything that a feature reads."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Listed files that cannot be samples: reason -> how many."""
    samples_left: int = 0
    """Samples to extract that a run with a deadline did not begin."""
    warnings: list[str] = field(default_factory=list)
    """One line for each thing that a user should know and that is not an error."""

    @property
    def samples(self) -> int:
        """Samples to extract."""
        return self.difference.work


def readable(listing: pa.Table, modalities: set[Modality]) -> pa.Table:
    """Returns the samples of ``listing`` that, by their file names, hold one of ``modalities``.

    Rows that name no sample are kept too: they become failures.
    """
    kept = pc.is_valid(listing["refused"])
    for role in roles_to_open(modalities):
        kept = pc.or_(kept, pc.is_valid(listing[f"{role}_uri"]))
    if "text" in modalities:
        kept = pc.or_(kept, pc.is_valid(listing["inline_text"]))
    return listing.filter(kept)


def make(
    config: PipelineConfig,
    state: Iterable[pa.Table],
    forgotten: tuple[str, ...],
    folder: str | None,
    root: str | None = None,
) -> Plan:
    """Lists the corpus, compares it with the dataset, and writes the work as plan files.

    Args:
        state: what the dataset holds, as tables of ``STATE``.
        forgotten: sha256 of the ids that are left out.
        folder: where the plan files go. None: samples are only counted.
        root: the dataset's folder that contains ``folder``.

    Raises:
        ConfigError: nothing to list, or duplicate ids.
    """
    source = sources.build(config.source)
    source.check("source")
    plan = Plan()

    def read_by_features() -> Iterator[pa.Table]:
        for table in source.list():
            kept = readable(table, wanted(config))
            plan.unused += len(table) - len(kept)
            yield kept

    writer = _PlanWriter(plan, config, folder, root)
    try:
        plan.difference = compare(
            read_by_features(),
            state,
            emit=writer.add,
            keep_deleted=config.output.on_delete == "keep",
            forgotten=forgotten,
            refused_folders=source.refused_folders,
            are_refused=partial(_link_out_of_roots, source.allowed_roots()),
        )
    except DuplicateIdError as error:
        raise source.duplicate_id_error(error.args[0]) from error
    plan.left_out = dict(source.left_out)
    return plan


def leave_unfinished(plan: Plan, samples_by_unit: Mapping[str, int], begun: frozenset[str] | None = None) -> list[str]:
    """Takes the units that were not begun out of the plan: the dataset keeps what it has of their samples.

    Args:
        samples_by_unit: name of each unit that was begun -> its finished samples.
        begun: names of the units that were begun. None: that is not known.

    Returns:
        a message for each unit that was finished in part.
    """
    problems, groups = list[str](), dict[str, list[int]]()
    for url, group, samples in plan.units:
        name = unit_name(url, group)
        finished = samples_by_unit.get(name, 0)
        if not finished and (begun is None or name not in begun):
            groups.setdefault(url, []).append(group)
            plan.samples_left += samples
        elif finished != samples:
            problems.append(f"unit {name} has {samples} samples, {finished} arrived")
    for url, numbers in groups.items():
        plan.difference.leave(read_places(url, numbers))
    return problems


def _link_out_of_roots(roots: AllowedRoots, listing: pa.Table) -> np.ndarray:
    """Returns [n] bool: True for a sample with a local file that is a symbolic link to a file outside of the roots.

    Only files that this machine can see are checked.
    """
    found = np.zeros(len(listing), bool)
    for role in ROLES:
        for i, uri in enumerate(listing[f"{role}_uri"].to_pylist()):
            is_remote = uri is not None and "://" in uri and not uri.startswith("file://")
            if uri is None or found[i] or is_remote:
                continue
            try:
                roots.check_real(os.path.realpath(storage.split(uri)[1]), uri)
            except SampleError:
                found[i] = True
    return found


class _PlanWriter:
    """Writes the work as plan files: one for each partition, with one row group for each unit."""

    def __init__(self, plan: Plan, config: PipelineConfig, folder: str | None, root: str | None) -> None:
        self.plan, self.config, self.folder, self.root = plan, config, folder, root
        self.roles = roles_to_open(wanted(config))
        self.files, self.rows = 0, 0

    def add(self, work: pa.Table) -> None:
        """Writes one partition of the samples to extract."""
        for role in self.roles:
            count = len(work) - work[f"{role}_uri"].null_count
            self.plan.samples_by_role[role] = self.plan.samples_by_role.get(role, 0) + count
        if self.folder is None:
            return
        url = storage.join(self.folder, f"{self.files:05d}.parquet")
        self.files += 1
        self.rows += len(work)
        rows = unit_rows(self.config, len(work), self.rows)
        buffer = pa.BufferOutputStream()
        pq.write_table(work, buffer, row_group_size=rows, compression="zstd", compression_level=1)
        storage.publish(url, buffer.getvalue().to_pybytes(), self.root)
        starts = range(0, len(work), rows)
        self.plan.units.extend((url, i, min(rows, len(work) - start)) for i, start in enumerate(starts))
