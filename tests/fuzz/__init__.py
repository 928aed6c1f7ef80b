"""Hostile inputs, made at random, for everything that comes from outside: `make fuzz`, or

    python -m tests.fuzz [KIND ...] [--seconds 600] [--seed 0] [--keep FOLDER]
    python -m tests.fuzz --replay FOLDER/KIND-xxxx.json

| kind | what is made up | what reads it |
|---|---|---|
| `configs` | bytes and structure of YAML, values of `--set` | `config.load` |
| `manifests` | CSV, TSV, JSON lines, Parquet with any types | `ManifestSource`: check, passthrough, list |
| `snapshots` | JSON, links, pipes: snapshots, leases, runs | reading, inspection, maintenance |
| `footers` | Parquet of a dataset: bytes, lineage, types of columns | the same |
| `checkpoints` | values in the JSON files of models | `features.bind` |
| `media` | heads, bytes and joints of small media of the demo's corpus | probe and decode, each in its process |

What must hold of every input (`oracles`): it is taken, or refused by one visible line of a `TesseraError`; nothing is
created, changed, removed or read outside its own folder; no program starts, nothing is unpickled, nothing connects;
time and memory stay below a bound. Files: `mutation` changes bytes and JSON, `cases` holds an input as a file, `worker`
tries inputs in a process that may die, `__main__` starts workers, counts, and keeps a file of each new failure.

Input number N of a seed is the same in each run, as long as the libraries are.
"""

KINDS = ("configs", "manifests", "snapshots", "footers", "checkpoints", "media")
