"""Sets up the encoder that is pickled on standard input, and prints the error."""

import pickle
import sys

from pipeline.core.errors import ConfigError

encoder = pickle.loads(sys.stdin.buffer.read())
try:
    encoder.setup()
except ConfigError as error:
    print(error)
