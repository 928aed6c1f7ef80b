"""A `torch.utils.data.DataLoader` of a `TorchReader` that counts the batches it returns.

This module imports torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from pipeline.dataset.loading.processes.worker_errors import WithWorkerErrors, checked

if TYPE_CHECKING:
    from pipeline.dataset.loading.torch_reader import TorchReader

_RESERVED = (
    "in_order",
    "batch_size",
    "shuffle",
    "sampler",
    "batch_sampler",
    "collate_fn",
    "drop_last",
    "dataset",
    "num_workers",
)
"""Arguments of ``DataLoader`` that the reader decides."""


class Loader:
    """Returns the batches of a reader. Each iteration is an epoch.

    Worker processes read ahead. A state counts only the batches that this loader has returned, not those that workers
    have read. An error of Tessera in a worker process is raised as it is without workers.

    Args:
        reader: the batches.
        num_workers: processes; 0: none.
        options: of ``DataLoader``.
    """

    def __init__(self, reader: TorchReader, num_workers: int, options: Mapping[str, Any]) -> None:
        if reserved := [name for name in options if name in _RESERVED]:
            raise TypeError(f"{reserved[0]} is no option of a loader: the reader decides it")
        self.reader = reader
        self._sequence = reader.sequence
        """That of the last iteration."""
        self._warn(max(1, num_workers))
        self._loader: DataLoader[Any] = DataLoader(
            WithWorkerErrors(reader), batch_size=None, num_workers=num_workers, collate_fn=_unchanged, **options
        )

    def __iter__(self) -> Iterator[Any]:
        if not self._loader.num_workers:
            yield from self._loader
            return
        if self.reader.sequence is not self._sequence:  # persistent workers read another snapshot or other streams
            self._sequence, self._loader._iterator = self.reader.sequence, None
        self.reader.begin_iteration(with_workers=True)
        for batch in self._loader:
            checked(batch)
            self.reader.hand_out()
            yield batch
        self.reader.end_iteration()

    def _warn(self, workers: int) -> None:
        """Warns if several processes decode the same row groups of a shuffled reader, and says what avoids it."""
        sequence, processes = self.reader.sequence, workers * self.reader.ranks[1]
        decoding = sequence.decoding_processes(processes)
        if decoding > 1 and sequence.shuffle:
            streams, chunk_rows = sequence.shape
            if sequence.batch_size % chunk_rows:
                warnings.warn(
                    f"each row group is decoded in {decoding} processes, since batch_size={sequence.batch_size} is no "
                    f"multiple of chunk_rows={chunk_rows}",
                    stacklevel=4,
                )
                return
            stride = processes * max(1, sequence.batch_size // chunk_rows)
            warnings.warn(
                f"each row group is decoded in {decoding} processes, since streams={streams} is no multiple of "
                f"{stride} (ranks x workers x batch_size / chunk_rows); streams={-(-streams // stride) * stride} "
                "avoids it",
                stacklevel=4,
            )

    def __len__(self) -> int:
        """Number of batches of this rank in an epoch that is read from its first batch on."""
        return len(self.reader)

    @property
    def remaining(self) -> int:
        """See `TorchReader.remaining`."""
        return self.reader.remaining

    @property
    def epoch(self) -> int:
        """The epoch of the current iteration, or of the next one if none has begun."""
        return self.reader.epoch

    def set_epoch(self, epoch: int) -> None:
        """See `TorchReader.set_epoch`."""
        self.reader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `TorchReader.state_dict`."""
        return self.reader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `TorchReader.load_state_dict`."""
        self.reader.load_state_dict(state)


def _unchanged(batch: Any) -> Any:
    """Collate function of torch's loader, which by default makes tensors of arrays."""
    return batch
