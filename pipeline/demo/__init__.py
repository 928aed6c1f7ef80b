"""The corpus and the checkpoints of `make demo`. They are generated, so they need no network and are always the same.

corpus.py       the corpus: pictures, clips, sounds and texts about coloured shapes
models.py       the checkpoints that the configs of `configs/` name
checkpoints/    real architectures, small, with weights from a seed
_synthesis.py   draws pictures, synthesises sounds, encodes media
"""
