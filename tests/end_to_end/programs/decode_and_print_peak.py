"""Decodes eight samples of each CONFIG; prints the rows and the peak of memory after each, in bytes, as JSON."""

import json
import sys
from pathlib import Path

from pipeline.benchmark import corpus
from pipeline.benchmark.baseline import rows_of
from pipeline.config import load
from pipeline.config.features import bind
from pipeline.core.system import allocator
from pipeline.stages.decode import DecodeStage
from pipeline.stages.probe import ProbeStage


def peak_bytes():
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


allocator.keep_pages()
reported = []
for path in sys.argv[1:]:
    settings = load(path)
    features = bind(settings)
    probe, decode = ProbeStage(settings, features), DecodeStage(settings, features)
    probe.setup()
    decode.setup()
    rows = rows_of(probe(corpus.draw(settings, 8)), features)
    done = list(decode.each(rows))
    assert rows
    assert not any(one.failures for one in done), [one.failures for one in done]
    reported.append([len(rows), peak_bytes()])
print(json.dumps(reported))
