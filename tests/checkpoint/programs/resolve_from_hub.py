"""Resolves a checkpoint of the hub and prints the error: ID COMMIT CONFIG_FIELD."""

import sys

from pipeline.checkpoint.checkpoint import resolve
from pipeline.core.errors import ConfigError

try:
    resolve(*sys.argv[1:])
except ConfigError as error:
    print(error)
