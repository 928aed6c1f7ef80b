"""Uses 1 s of CPU time under each of two titles: as an idle worker of Ray, then as one that encodes."""

import os
import sys
import time

end = time.process_time() + 1
while time.process_time() < end:
    pass
if sys.argv[1] == "default_worker.py":
    os.execv(sys.executable, [sys.executable, __file__, "ray::MapWorker(MapBatches(_Stage))"])
time.sleep(1.5)
