"""What a run reports to other systems. Nothing here can end a run, delay it beyond a time limit, or show a secret.

webhook.py               posts the summary of a night to a URL
openlineage.py           emits OpenLineage events of a run: START, then COMPLETE, FAIL or ABORT
_openlineage_events.py   the client of OpenLineage, the events and their facets
_dataset_names.py        names of datasets as OpenLineage composes them
_time_limit.py           runs a call that may hang, for a limited time

It imports `core`.
"""
