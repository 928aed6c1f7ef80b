"""The command line.

cli.py                 the `tessera` command: extract, benchmark and the demo's corpus and models
_dataset_commands.py   commands that show and maintain a dataset
_options.py            arguments and options that several commands have
_console.py            output, exit codes and signals
"""
