"""The parts of `pipeline.dataset.maintenance`.

steps.py         MaintenanceResult, and the steps that all commands share
rewrite.py       writes the rows of several files that are not deleted into new files
forget.py        removes samples from all versions
vacuum.py        deletes old snapshots, the files that only they name, and expired pins
run_folders.py   deletes the folders of old runs
"""
