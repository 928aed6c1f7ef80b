"""What the tokenizers share.

frame_sampling.py    which frames a feature takes
token_windows.py     a long text cut into windows of tokens
"""
