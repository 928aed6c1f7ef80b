"""Media of the demo's corpus with changed heads, bytes and joints, through probe and decode in their processes."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import decoders, sources
from pipeline.config.features import bind
from pipeline.core.errors import FAILURE_KINDS
from pipeline.demo import corpus, models
from pipeline.sandbox import ForkServer, LimitsConfig, SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from pipeline.stages.decode import DecodeStage
from pipeline.stages.probe import ProbeStage
from tests.fuzz import mutation
from tests.fuzz.cases import Case
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, config, text

LIMITS = LimitsConfig(row_seconds=4.0, memory_bytes=512 << 20)
_MOST_BYTES = 2 << 20
_PROGRAMS = ("gs", "ffmpeg", "ffprobe", "convert", "magick", "inkscape", "rsvg-convert", "dvips", "xdg-open", "curl")
_HEADS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://@OUTSIDE@/secret.txt\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile @OUTSIDE@/secret.txt\n",
    b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file://@OUTSIDE@/secret.txt'>]><svg>&e;</svg>",
    b"WEBVTT\n\n00:00.000 --> 99999999:00.000\nx\n",
    b"1\n00:00:00,000 --> 00:00:01,000\n&#9" + b"9" * 5000 + b";\n",
    b'{"segments": [{"start": 1e308, "end": -1, "text": "x"}]}',
    b"<html>" + b"<div>" * 5000,
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41",
    b"OggS\x00\x02",
    b"fLaC\x80\xff\xff\xff",
    b"GIF89a\xff\xff\xff\xff",
    b"II*\x00\x08\x00\x00\x00",
)


def _check() -> None:
    """In the fork server: what the stages import."""
    decoders.load({"text", "image", "video", "audio"}, decoders.DecodersConfig())


class Media:
    seconds, memory_mb, starts = 60.0, 1024, True

    def __init__(self, work: Path) -> None:
        root = work / "corpus"
        corpus.build(root)
        found: dict[str, list[Path]] = {}
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.stat().st_size < _MOST_BYTES:
                found.setdefault(path.suffix, []).append(path)
        self.seeds = {suffix: [path.read_bytes() for path in paths[:4]] for suffix, paths in found.items()}
        shutil.rmtree(root)
        models.build(work / "models")
        self._trap(work)
        self.forks = ForkServer(_check)
        self.forks.prepared()
        (work / "empty").mkdir()
        features = {"i": IMAGE, "v": VIDEO, "a": AUDIO, "t": text(work / "models" / "bert")}
        settings = config(work / "empty", features, window={"length_s": 2})
        stages = [stage(settings, bind(settings)) for stage in (ProbeStage, DecodeStage)]
        self.probe, self.decode = (
            SandboxedStage(stage, LIMITS, ProcessOptions(self.forks.address)) for stage in stages
        )
        self.probe.setup()
        self.decode.setup()

    def _trap(self, work: Path) -> None:
        """Programs that a decoder might start leave a file outside."""
        (work / "bin").mkdir()
        for name in _PROGRAMS:
            program = work / "bin" / name
            program.write_text(f"#!/bin/sh\ntouch {work}/outside/started-{name}\n")
            program.chmod(0o755)
        os.environ["PATH"] = f"{work}/bin:{os.environ['PATH']}"

    def prepare(self, box: Path) -> None:
        (box / "in").mkdir()

    def case(self, rng: random.Random) -> Case:
        name = rng.randbytes(6).hex()  # a file that failed before is known by its name
        return Case({f"in/{name}{number}{suffix}": data for number, (suffix, data) in enumerate(self._files(rng))})

    def _files(self, rng: random.Random) -> Any:
        for _ in range(12):
            suffix = rng.choice(sorted(self.seeds))
            data = rng.choice(self.seeds[suffix])
            kind = rng.randrange(10)
            if kind == 0:
                data = rng.choice(_HEADS) + data[rng.choice((0, 16, 512)) :]
            elif kind == 1:
                other = rng.choice(self.seeds[rng.choice(sorted(self.seeds))])
                data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
            elif kind == 2:
                suffix = rng.choice(sorted(self.seeds))
            if rng.random() < 0.9:
                data = mutation.changed(rng, data, head=0.7)
            yield suffix, data[:_MOST_BYTES]

    def run(self, box: Path, case: Case) -> Any:
        source = sources.build(sources.files.Config(kind="files", path=str(box / "in")))
        source.check("source")
        rows = self.probe(pa.concat_tables(source.list()))
        done = self.decode(rows)
        assert len(done) <= len(rows), "rows came from nowhere"
        reported = [one for table in (rows, done) for row in table["failures"].to_pylist() for one in row]
        kinds = Counter(one["kind"] for one in reported)
        assert set(kinds) <= set(FAILURE_KINDS), kinds
        defects = {f"{one['uri']}: {one['message']}" for one in reported if one["kind"] == "internal"}
        assert not defects, sorted(defects)
        lines = [one["message"] for one in reported if "\n" in one["message"] or not one["message"].isprintable()]
        assert not lines, f"not one visible line: {lines[0]!r:.300}"
        return [one["message"] for one in reported]
