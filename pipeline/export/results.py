"""What an export or a card wrote, for a terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.core.terminal import Console, count, print_wrapped, size


@dataclass(frozen=True)
class ExportResult:
    """What `export_dataset` wrote."""

    dataset: str
    version: str
    snapshot: int
    """Number of the snapshot that was exported."""
    created: str
    """When the snapshot was made, ISO."""
    run_id: str
    """The run that made it."""
    format: str
    output: str
    rows: int
    columns: tuple[str, ...]
    files: int
    bytes: int
    pinned: bool
    """Whether the snapshot was pinned meanwhile."""
    seconds: float
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Returns it as values for JSON."""
        return asdict(self)

    def show(self, console: Console) -> None:
        """Prints it."""
        print_wrapped(
            console,
            f"exported {count(self.rows, 'row')} and {count(len(self.columns), 'column')} of snapshot {self.snapshot} "
            f"of version {self.version}: {self.format}, {count(self.files, 'file')}, {size(self.bytes)}",
        )
        _show_rest(console, self.output, self.warnings)


@dataclass(frozen=True)
class CardResult:
    """What `write_card` wrote."""

    dataset: str
    version: str
    snapshot: int
    created: str
    run_id: str
    output: str
    files: tuple[str, ...]
    rows: int
    shards: int
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Returns it as values for JSON."""
        return asdict(self)

    def show(self, console: Console) -> None:
        """Prints it."""
        print_wrapped(
            console,
            f"wrote {' and '.join(self.files)} for snapshot {self.snapshot} of version {self.version}: "
            f"{count(self.rows, 'row')} in {count(self.shards, 'shard')}",
        )
        _show_rest(console, self.output, self.warnings)


def _show_rest(console: Console, output: str, warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        print_wrapped(console, f"warning: {warning}")
    console.print(f"output: {output}", soft_wrap=True)
