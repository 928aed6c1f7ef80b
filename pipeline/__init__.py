"""Tessera: media in; aligned embeddings and token sequences in Parquet out.

The flow, and where each step lives (an import goes down this list, never up):

    inspection    a dataset for a person
    upkeep        compact, roll back, forget, vacuum
    run           list and diff -> extract -> commit -> report
    graph         the Ray Data graph, and its stages as Ray calls them
    cluster       the Ray that it runs on, and the room on its nodes
    pools         how many actors, and of how many CPUs
    progress      what a person sees meanwhile; memory
    trail         what an encoder was at when its process died
    report        what a run did
    terminal      what is printed: visible characters only
    stages/       rows -> rows: probe + cut, decode + tokenize, encode + head; plain classes, no Ray
    sinks/        rows -> Parquet shards and failures
    plan          what is to do, in units; how a sample is cut into windows
    features      a feature bound to its checkpoint, checked
    config        PipelineConfig
    yamls         YAML as configs want it
    demo/         the demo's corpus and checkpoints
    sources/      where samples come from
    decoders/     bytes -> text, pixels, frames, waveform
    heads/        vectors -> the shared space
    encoders/     token sequences -> vectors
    tokenizers/   decoded media -> token sequences
    isolation/    stages in a child process, which may die, hang or grow
    transaction   from one snapshot to the next, under a lease
    state         what the dataset holds, as the difference reads it
    difference    the corpus's listing against the dataset, in partitions
    lease         one writer at a time
    dataset       reading, without Ray or transformers
    reading       the live rows of one shard, wherever it lies now
    snapshots     what a dataset is at each moment; versions
    collate       batches of tensors
    malloc        freed pages are kept for the next row
    tensors       arrays <-> Arrow columns
    schema        columns, Arrow types, units, the contract's version
    checkpoint    a model on disk: safetensors only
    checkpoint_files  what its files may be, and may ask for
    parquet       Parquet files that somebody else may have written
    folder        what lies in a dataset, reached without following a link
    storage       files on any fsspec URL; atomic publishing
    roots         where the files of a corpus may lie
    local_files   the same of local files below a folder
    strict_json   JSON that somebody else may have written
    ranged        a remote file in ranges
    retrying      again, with backoff and jitter
    private_folder  folders for a while that only this user may enter
    media         decoded media and their one clock
    errors        ConfigError, SampleError and kin
    redaction     secrets in URLs and texts
    escaping      control and invisible characters as visible escapes

Public names: `pipeline.config.load`, `pipeline.run.prepare`, `pipeline.run.extract`,
`pipeline.dataset.open`, and those of `pipeline.dataset.maintenance`.
"""
