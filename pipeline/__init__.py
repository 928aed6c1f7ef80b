"""Tessera: media in; aligned embeddings and token sequences in Parquet out.

The flow, and where each step lives (an import goes down this list, never up):

    inspection    a dataset for a person
    upkeep        compact, roll back, forget, vacuum
    run           list and diff -> extract -> commit -> report; builds the Ray Data graph
    progress      what a person sees meanwhile; memory
    report        what a run did
    stages/       rows -> rows: probe + cut, decode + tokenize, encode + head; plain classes, no Ray
    sinks/        rows -> Parquet shards and failures
    plan          what is to do, in units; how a sample is cut into windows
    features      a feature bound to its checkpoint, checked
    config        PipelineConfig
    demo/         the demo's corpus and checkpoints
    sources/      where samples come from
    decoders/     bytes -> text, pixels, frames, waveform
    heads/        vectors -> the shared space
    encoders/     token sequences -> vectors
    tokenizers/   decoded media -> token sequences
    transaction   from one snapshot to the next, under a lease
    state         what the dataset holds, as the difference reads it
    difference    the corpus's listing against the dataset, in partitions
    lease         one writer at a time
    dataset       reading, without Ray or transformers
    snapshots     what a dataset is at each moment; versions
    tensors       arrays <-> Arrow columns
    schema        columns, Arrow types, units, the contract's version
    checkpoint    a model on disk: safetensors only
    storage       files on any fsspec URL; atomic publishing
    media         decoded media and their one clock
    errors        ConfigError, SampleError and kin

Public names: `pipeline.config.load`, `pipeline.run.prepare`, `pipeline.run.extract`,
`pipeline.dataset.open`, and those of `pipeline.upkeep`.
"""
