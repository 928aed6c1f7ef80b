"""`tessera nightly`, and the program of its Ray job: `python -m jobs.nightly CONFIG [OPTIONS]`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs._console import EXIT_CONFIG, end, reserved_stdout
from jobs._options import Deadline, Json, Overrides
from pipeline.core.errors import TesseraError
from pipeline.core.terminal import Console, json_text

if TYPE_CHECKING:
    from pipeline.nightly import NightRecord

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
    no_webhook: Annotated[bool, typer.Option("--no-webhook", help="Do not call nightly.webhook.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a dataset up to date, compact and vacuum it, and write a summary, whatever happens."""
    import psutil

    from pipeline import config as configs
    from pipeline import nightly as nights

    options = nights.NightOptions(engine, deadline, wait, partial_exit, not no_webhook)
    path = nights.local_path(config, summary)
    night = nights.Night(config, path, options, psutil.Process().create_time())
    try:
        with reserved_stdout(as_json):
            night.run(lambda: configs.load(config, overrides))
    except TesseraError as error:
        end_night(night, as_json, error)
    except BaseException:
        print_summary(night, as_json)
        raise
    end_night(night, as_json)


def end_night(night: NightRecord, as_json: bool, error: TesseraError | None = None) -> None:
    """Prints the summary, and ends the program with its exit code.

    Args:
        error: why the night failed. None: it did not, or it ran elsewhere.
    """
    print_summary(night, as_json)
    cause, code = night.summary["cause"] if error is None else str(error), night.summary["exit_code"]
    if cause is not None:
        end(cause, code or EXIT_CONFIG)
    sys.exit(code)


def print_summary(night: NightRecord, as_json: bool) -> None:
    """Prints the summary: as one JSON document, or what is worth a look."""
    from pipeline import nightly as nights

    if as_json:
        print(json_text(night.summary), flush=True)
    elif night.summary["report"] is not None:
        nights.show(night.summary, night.path, Console())


def main() -> None:
    """Entry of the program of a Ray job. Exit codes as those of `tessera nightly`."""
    from jobs import extract

    extract.run_on_cluster("nightly")


if __name__ == "__main__":
    main()
