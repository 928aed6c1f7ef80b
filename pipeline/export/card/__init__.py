"""The card of a dataset: what it is, who reads it how, and where its values come from.

writing.py     write_card: describes a snapshot, and writes both files
facts.py       Facts: what both files say, without secrets and without paths of this machine
readme.py      README.md, with the header that Hugging Face reads
croissant.py   croissant.json (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html)
_markdown.py   untrusted text in Markdown
"""
