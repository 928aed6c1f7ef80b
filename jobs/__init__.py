"""The command line, and the program of a job on a cluster.

cli.py                 the `tessera` command: extract, benchmark and the demo's corpus and models
extract.py             the program of a job: `tessera extract` on the cluster of the job
nightly.py             `tessera nightly`, and the program of its job
examples/              programs that train on a dataset
_dataset_commands.py   commands that show and maintain a dataset
_export_commands.py    commands that export a dataset, and write its card
_job_commands.py       commands that submit, follow and stop jobs, and examine a cluster
_cluster.py            the client of a cluster's dashboard
_job_package.py        what travels with a job
_job_output.py         what users see of a job
_job_log.py            follows the log of a job
_job_night.py          a night as a job, and its summary on this machine
_options.py            arguments and options that several commands have
_console.py            output, exit codes and signals
"""
