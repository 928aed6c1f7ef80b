"""Code that several encoder families share.

transformers_encoder.py   base class of encoders that run a `transformers` model, and its config
loading.py                loads a model from a checkpoint, once per process
microbatcher.py           runs rows through `forward` in micro-batches, also where memory runs out
microbatches.py           groups items into forward passes by length
adaptive_batch.py         scales the batch size to what fits into memory
device.py                 copies arrays to the device and results back
weights.py                dtype and embedding space of a checkpoint's weights
int8.py                   linear layers in int8, for CPUs with AVX512-VNNI
compiled.py               `torch.compile` for the layers of a model on CUDA
pixels.py                 base class of encoders that take pixels
pictures.py               base class of encoders of images and of single video frames
tubelets.py               base class of encoders of video clips
two_towers.py             base class of encoders of images and texts into one space
text.py                   pads token ids into batches and splits the output into rows
sounds.py                 base classes of encoders of sound
audio.py                  splits waveforms into parts that a model takes and joins their outputs
kaldi.py                  log-mel features of many waveforms at once
gemma.py                  processor and forward passes of EmbeddingGemma 2
"""
