"""Small checkpoints of real `transformers` architectures, with weights from a seed, processors and tokenizers.

text.py                 text models
vision.py               models of images and videos
_vision_tokenizers.py   tokenizers of the vision models
audio.py                models of sound
gemma.py                EmbeddingGemma 2: text, images, video and sound in one space
_seeded.py              weights from a seed; tokenizers trained on generated sentences
"""
