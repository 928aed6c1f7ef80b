"""`tessera nightly`, and the program of its Ray job: `python -m jobs.nightly CONFIG [OPTIONS]`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from jobs._console import reserved_stdout
from jobs._options import Deadline, Json, Overrides
from pipeline.core.terminal import Console, json_text

Wait = Annotated[
    str | None, typer.Option(help="How long to wait for another night of this dataset: 1h. Else nightly.wait.")
]
PartialExit = Annotated[
    int, typer.Option(help="Exit code of a night that its deadline cut short.", min=0, max=125, metavar="CODE")
]
SummaryFile = Annotated[
    str | None,
    typer.Option("--summary", help="File for the summary; else ~/.local/state/tessera/nightly/CONFIG.json."),
]


def nightly(
    config: Annotated[str, typer.Argument(help="YAML file of the extraction.")],
    overrides: Overrides = None,
    engine: Annotated[
        Literal["local", "ray", "inline"] | None,
        typer.Option(help="What runs the pipeline, instead of engine.kind of the config."),
    ] = None,
    deadline: Deadline = None,
    wait: Wait = None,
    partial_exit: PartialExit = 0,
    summary: SummaryFile = None,
    as_json: Json = False,
) -> None:
    """Bring a dataset up to date, compact and vacuum it, and write a summary, whatever happens."""
    import psutil

    from pipeline import config as configs
    from pipeline import nightly as nights

    path = nights.local_path(config, summary)
    options = nights.NightOptions(engine, deadline, wait, partial_exit)
    night = nights.Night(config, path, options, psutil.Process().create_time())
    try:
        with reserved_stdout(as_json):
            night.run(lambda: configs.load(config, overrides))
    finally:
        if as_json:
            print(json_text(night.summary), flush=True)
    if not as_json:
        nights.show(night.summary, path, Console())
    sys.exit(night.summary["exit_code"])


def main() -> None:
    """Entry of the program of a Ray job. Exit codes as those of `tessera nightly`."""
    from jobs import extract

    extract.run_on_cluster("nightly")


if __name__ == "__main__":
    main()
