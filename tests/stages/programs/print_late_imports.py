"""Prints what probing and decoding import after their setup, and the failures: FOLDER TEXT_CHECKPOINT."""

import sys
from pathlib import Path

from PIL import Image

from pipeline.stages.decode import DecodeStage
from pipeline.stages.probe import ProbeStage
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, bound, config, text, write_clip

folder = Path(sys.argv[1])
write_clip(folder / "clip.mp4", 1.0, 1.0)
Image.new("CMYK", (20, 20)).save(folder / "b.jpg")
words = "Der schöne Frühling kommt früh über die grünen Hügel, und die Vögel singen wieder. "
(folder / "c.txt").write_bytes((words * 9).encode("latin-1"))
sound = {**AUDIO, "tokenizer": {"kind": "audio_frame", "sample_rate": 11025}}
settings, features, table = bound(config(folder, {"i": IMAGE, "v": VIDEO, "a": sound, "t": text(Path(sys.argv[2]))}))
for stage in (ProbeStage(settings, features), DecodeStage(settings, features)):
    stage.setup()
    before = {name.split(".")[0] for name in sys.modules}
    table = stage(table)
    print(sorted({name.split(".")[0] for name in sys.modules} - before))
print([failed for row in table["failures"].to_pylist() for failed in row])
