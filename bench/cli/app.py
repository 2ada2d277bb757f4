"""The command itself: its start, its end, and mistakes in one line."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated

import typer

from bench import PROTOCOL, __version__
from bench.errors import UserError
from bench.store.files import DISK_FULL

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Threads that wait must sleep: two spinning ones on a busy two-core machine are ten times slower than one."""
DETERMINISTIC_CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Without it cuBLAS refuses to work under `deterministic: true`. Read when CUDA starts; 32 MiB, as on Hopper anyway."""

app = typer.Typer(
    name="isochron",
    help="Give each architecture the same seconds and all the memory, and report what it made of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the versions of program and protocol.")] = False,
) -> None:
    if version:
        print(f"isochron {__version__}, protocol {PROTOCOL}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script and of ``python -m bench``."""
    for name, value in {**PASSIVE_WAITING, **DETERMINISTIC_CUBLAS}.items():
        os.environ.setdefault(name, value)
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # --debug may stand anywhere, as people write it.
    arguments = ["--debug", *[argument for argument in arguments if argument != "--debug"]] if debug else arguments
    code, line = 1, ""
    try:
        app(args=arguments, prog_name="isochron")
    except KeyboardInterrupt:
        code, line = 130, "stopped"
    except Exception as error:
        if debug:
            traceback.print_exc()
        line = _one_line(error)
    if line:  # outside the handler, so that what the error held is free before the interpreter ends
        print(f"isochron: {line}", file=sys.stderr)
        raise SystemExit(code)


def _one_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return DISK_FULL
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    where = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    what = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    return f"{where}{what} (isochron --debug shows where)"
