"""Collate functions of training methods, for readers of batches (`Dataset.to_torch` with ``batch_size``).

contrastive.py   ContrastiveCollate: rows that have all of several modalities, and which rows are of one sample
mlm.py           MlmCollate: masked language modelling over token ids, padded or packed
words.py         WordBoundaries: which token ids begin or end a word, from a tokenizer
mim.py           MimCollate: masked modelling of images and videos over their grids
masked_audio.py  MaskedAudioCollate: the masked spans of wav2vec 2.0 over audio frames
_grid_masks.py   random, tube and block masks over grids
_choice.py       random choices of an exact number of values in each row
_random.py       random numbers that depend on a seed, an epoch and the number of a row
_rows.py         the rows of a batch that have all values

Each is a picklable frozen dataclass. No module loops over the rows of a batch. torch is imported when the first tensor
is made. No other folder of the package imports this one.

A mask depends on the ``seed`` of the collate function, on the epoch, and on the number of the row in the order of the
epoch. The reader passes the last two as a `Place`. So a row of an epoch has the same mask whichever rank and worker
reads it, after a resume on other numbers of them, and in batches of any size. Each epoch has other masks (the dynamic
masking of RoBERTa), and so has a row that a mixture repeats. A generator that advances with each batch, as those of
torch and numpy do, would draw other masks after a resume; so would the number of the batch, since the batches of the
last round depend on the number of ranks. Without a reader, `Place.of_ids` makes the place from ids of the rows.
"""

from __future__ import annotations

from pipeline.dataset.loading.place import Place
from pipeline.training.contrastive import ContrastiveCollate
from pipeline.training.masked_audio import MaskedAudioCollate
from pipeline.training.mim import MimCollate
from pipeline.training.mlm import MlmCollate
from pipeline.training.words import WordBoundaries

__all__ = ["ContrastiveCollate", "MaskedAudioCollate", "MimCollate", "MlmCollate", "Place", "WordBoundaries"]
