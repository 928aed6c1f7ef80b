"""Takes the lease of ROOT for TTL_S seconds, prints "held", and holds it for a minute."""

import sys
import time

from pipeline.dataset.commit.lease import Lease

with Lease(sys.argv[1], "extract x", float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
