"""What a run reports to other systems while it works, and when it ends. It never changes what a run computes.

metrics.py               the list of metrics: name, type, labels, meaning
config.py                the section ``metrics`` of a config
table_counts.py          what a table of finished rows adds to the metrics
recording.py             the values of this process, passed to those who export them
prometheus.py            exports them at a port, or in a text file, for Prometheus
_metrics_server.py       its HTTP server
host.py                  memory, disks and GPUs of this machine
webhook.py               posts the summary of a night to a URL
openlineage.py           emits OpenLineage events of a run: START, then COMPLETE, FAIL or ABORT
_openlineage_events.py   the client of OpenLineage, the events and their facets
_dataset_names.py        names of datasets as OpenLineage composes them
_time_limit.py           runs a call that may hang, for a limited time

`engine/ray/metrics.py` exports metrics on Ray. Nothing here imports a large library at its top level.
"""
