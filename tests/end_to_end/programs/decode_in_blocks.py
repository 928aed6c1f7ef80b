"""Decodes eight samples of CONFIG block by block; prints the rows of each block as JSON."""

import json
import sys

from pipeline.benchmark import corpus
from pipeline.config import load
from pipeline.config.features import bind
from pipeline.core.system import allocator
from pipeline.stages.block_splitter import BlockSplitter
from pipeline.stages.decode import DecodeStage
from pipeline.stages.probe import ProbeStage

allocator.keep_pages()
settings = load(sys.argv[1])
features = bind(settings)
probe, decode = ProbeStage(settings, features), DecodeStage(settings, features)
probe.setup()
decode.setup()
rows = probe(corpus.draw(settings, 8))
splitter = BlockSplitter(features, settings.decoders.limits.block_bytes)
print(json.dumps([len(decode(part)) for part in splitter.split(rows)]))
