"""Lists the samples of a manifest: PATH OPTIONS. Prints the number of rows, and the error if there is one."""

import json
import sys

from pipeline.core.errors import ConfigError
from pipeline.sources.manifest import Config, ManifestSource

rows = 0
try:
    options = {"columns": {"id": "id", "inline_text": "t"}, **json.loads(sys.argv[2])}
    source = ManifestSource(Config(path=sys.argv[1], **options))
    source.check("source")
    for table in source.list():
        rows += len(table)
    print("LISTED", rows)
except ConfigError as error:
    print("ERROR", rows, error)
