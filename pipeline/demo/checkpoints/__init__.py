"""Small checkpoints of true `transformers` architectures, with seeded weights, processors and tokenizers.

text.py      text models
vision.py    pictures and videos
audio.py     sounds
gemma.py     EmbeddingGemma 2: text, pictures, video and sound in one space
_seeded.py   weights from a seed; tokenizers learnt from words
"""
