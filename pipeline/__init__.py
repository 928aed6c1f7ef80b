"""Tessera: media in; aligned embeddings and token sequences in Parquet out.

The folders, from the top down; imports go down this list, never up. Each begins with its own map.

    benchmark/     how fast a config goes on this machine, and against what
    demo/          the corpus and the checkpoints of `make demo`
    run/           one extraction: prepare and check -> plan -> execute -> report -> check the budget -> commit
    engine/        PipelineSpec, and the engines that run it: inline.py, ray/
    stages/        Arrow table -> Arrow table: probe and cut, decode and tokenize, encode and project, reuse columns
    sandbox/       a stage in a supervised worker process: crashes, hangs and memory cost one cell
    config/        PipelineConfig from YAML; features bound to their checkpoints
    sources/       where samples come from: files, manifests
    heads/         vectors -> the shared space
    encoders/      token sequences -> vectors, one file for each family of models
    tokenizers/    decoded media -> token sequences
    decoders/      bytes -> text, pixels, frames, waveform
    export/        a dataset for other libraries (WebDataset, Lance, `datasets`), and its card
    training/      batches of a dataset for methods of training: contrastive, masked text, images and sound
    dataset/       the versioned dataset: reading, shards, commit, comparison with a corpus, maintenance
    telemetry/     what a run reports to other systems: a webhook, OpenLineage
    checkpoint/    model checkpoints on disk: safetensors only
    parquet/       Parquet files that somebody else may have written
    storage/       files on any fsspec URL: listing, ranges, atomic publication, retries
    core/          what everything speaks: errors, media, columns, Arrow arrays, terminal

The way of a row through them, with pictures: docs/architecture.md.

Public names: `pipeline.config.load`, `pipeline.run.prepare`, `pipeline.run.extract`, `pipeline.dataset.open`, and those
of `pipeline.dataset.maintenance` and `pipeline.export`.
"""

__version__ = "0.1.0"
