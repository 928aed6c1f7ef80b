"""The formats of exports. Each module has ``check``, which finds out what is missing, and ``write``.

webdataset.py   tar files for the library `webdataset`
keys.py         names of the samples and of their members in a tar file
lance.py        a dataset of `lance`
datasets.py     a folder of `datasets`
"""
