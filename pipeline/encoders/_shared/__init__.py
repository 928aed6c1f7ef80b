"""What the encoders share.

transformers_encoder.py   loading a `transformers` model, its device and dtype, micro-batches, running out of memory
microbatches.py           how rows are grouped into forward passes
adaptive_batch.py         the micro-batch that memory allows
device.py                 arrays to the device and back
weights.py                dtypes and identities of weights
int8.py                   linear layers in int8 on CPUs with AVX512-VNNI
compiled.py               layers compiled for CUDA
pixels.py                 encoders of pictures, frames and tubelets
two_towers.py             encoders of pictures and texts into one space
text.py                   token ids into padded batches
audio.py                  sounds in parts that a model takes
gemma.py                  what EmbeddingGemma 2 makes of pictures, sounds and words
"""
