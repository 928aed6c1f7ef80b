"""What the tokenizers share.

pixel_processor.py   resizing and cropping as a checkpoint's own processor does
frame_sampling.py    which frames a feature takes
token_windows.py     a long text cut into windows of tokens
"""
