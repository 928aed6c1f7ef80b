"""Checks the files of the checkpoint FOLDER."""

import sys

from pipeline.checkpoint.files import check

check(sys.argv[1], "x")
