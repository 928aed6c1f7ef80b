"""Output, exit codes and signals of the `tessera` command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import typer

from pipeline.core.errors import BudgetExceeded, ConfigError, TesseraError, one_line
from pipeline.core.terminal import Console, escaped_streams, json_text, stdout_to_stderr

EXIT_ABORTED, EXIT_CONFIG, EXIT_BUDGET, EXIT_INTERRUPTED = 1, 2, 3, 4


def reserved_stdout(as_json: bool) -> AbstractContextManager[None]:
    """Redirects standard output to standard error while a command works, if it prints a JSON document afterwards."""
    return stdout_to_stderr() if as_json else nullcontext()


def print_result(as_json: bool, document: Callable[[], Any], show: Callable[[Console], None]) -> None:
    """Prints the result of a command.

    Args:
        document: returns it as plain values, for ``as_json``.
        show: prints it on a terminal.
    """
    if not as_json:
        show(Console())
        return
    with reserved_stdout(as_json):
        found = document()
    print(json_text(found))


class Stopped(BaseException):
    """SIGTERM or Ctrl-C. A class of its own, so that no caller handles it as an error or as its own interrupt."""


def stop(*_: object) -> None:
    """Handles a signal: raises `Stopped` in the main thread."""
    raise Stopped


def run_app(app: typer.Typer) -> NoReturn:
    """Runs the command line and exits with its code. Handles SIGTERM and SIGINT, and prints errors in one line."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with escaped_streams():
        _run(app)


def _run(app: typer.Typer) -> NoReturn:
    try:
        sys.exit(app(prog_name="tessera", standalone_mode=False) or 0)
    except ConfigError as error:
        end(str(error), EXIT_CONFIG)
    except BudgetExceeded as error:
        end(str(error), EXIT_BUDGET)
    except TesseraError as error:
        end(str(error), EXIT_INTERRUPTED)
    except Stopped:
        end("interrupted", EXIT_INTERRUPTED)
    except SystemExit as ended:
        if ended.code == signal.SIGTERM:  # raised by Ray's own handler while Ray starts
            end("interrupted", EXIT_INTERRUPTED)
        raise
    except typer.Abort:
        end("aborted", EXIT_ABORTED)
    except Exception as error:  # usage errors, whose class depends on typer's version
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
            sys.exit(EXIT_CONFIG)
        end(f"{one_line(message())} (tessera --help lists what there is)", getattr(error, "exit_code", EXIT_CONFIG))


def end(message: str, code: int) -> NoReturn:
    """Prints an error and ends the program."""
    print(f"tessera: {message}", file=sys.stderr)
    sys.exit(code)
