"""Code that several tokenizers share.

frame_sampling.py    which frames of a window a feature takes
geometry.py          size of pictures and patches for an encoder without a checkpoint
fast_tokenizer.py    loads a checkpoint's text tokenizer, and its limits
token_windows.py     cuts a long text into spans that fit windows of tokens
"""
