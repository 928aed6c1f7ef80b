"""The corpus and the checkpoints of `make demo`: made by this code, so they need no network and always are the same.

corpus.py       shapes that are drawn, move, sound and are described
models.py       the checkpoints that the configs of `configs/` name
checkpoints/    true architectures, small, with seeded weights
_synthesis.py   drawing, sounding and encoding
"""
