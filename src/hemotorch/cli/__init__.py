"""The command line: one command per verb. Everything heavy is imported by the command that needs it.

__main__  `python -m hemotorch.cli`
cluster   `hemotorch cluster`: several processes by torchrun, SLURM or Ray
commands  what each of the other commands does
options   how commands are added, and the options that several of them share
output    results as text or as JSON
parser    the parser of the whole command line
serve     `hemotorch serve`: the app in a browser
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hemotorch.cli.options import Resuming
from hemotorch.cli.parser import make_parser
from hemotorch.errors import HemotorchError, explain
from hemotorch.system.limits import allow_voxels
from hemotorch.system.threads import process_environment


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0 done, 1 an explained error, 130 interrupted.
    """
    _open_streams()
    arguments = make_parser().parse_args(argv)
    # Before anything heavy is imported: OpenMP reads its variables once, when torch loads it.
    with process_environment(getattr(arguments, "threads", None)), _noticed_interrupts() as interrupts:
        status = _run(arguments, interrupts)
    if "WORLD_SIZE" in os.environ:
        from hemotorch.system.ranks import exit_rank

        return exit_rank(status)
    return status


def _open_streams() -> None:
    """Gives this process the streams that it was started without, and lets the others print any file name.

    Without them the next file that is opened would become stderr, and warnings would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _noticed_interrupts() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as ever, and leaves a note: a library may make another error of it."""
    noticed: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        noticed.append(number)
        raise KeyboardInterrupt

    main_thread = threading.current_thread() is threading.main_thread()
    replace_handler = main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if replace_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield noticed
    finally:
        if replace_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(arguments: argparse.Namespace, interrupts: list[int]) -> int:
    from hemotorch.system.events import Terminal, listening

    allow_voxels(getattr(arguments, "max_voxels", None))
    try:
        with listening(Terminal(text=not arguments.json, command=arguments.command)):
            return int(arguments.run(arguments) or 0)
    except HemotorchError as error:
        return _failed(arguments, str(error))
    except KeyboardInterrupt:
        return _stopped(arguments)
    except BrokenPipeError:
        # The reader (head, less) closed; Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        return _failed(arguments, f"not enough memory ({error or 'no more said'})")
    except Exception as error:
        from hemotorch.system.extras import missing_extra
        from hemotorch.system.files import disk_error

        if interrupts:
            return _stopped(arguments)
        known = disk_error(error, getattr(error, "filename", None) or "the output")
        if isinstance(error, ImportError):
            known = missing_extra(error, f"`hemotorch {arguments.command}`")
        elif known is None and isinstance(error, OSError) and error.strerror:
            known = explain(error, error.filename or "the output")  # a name too long, a folder below /proc
        if known is None:
            raise
        return _failed(arguments, str(known))


def _failed(arguments: argparse.Namespace, text: str) -> int:
    print(f"hemotorch {arguments.command}: {text}", file=sys.stderr)
    return 1


def _stopped(arguments: argparse.Namespace) -> int:
    match arguments.resuming:
        case Resuming.SAME_COMMAND:
            todo = "; the same command goes on from there"
        case Resuming.OPTION if (Path(arguments.run_folder) / "last.pt").exists():
            todo = "; with --resume it goes on from its last checkpoint"
        case Resuming.OPTION:
            todo = "; no checkpoint was written yet, with --resume it starts from the beginning"
        case _:
            todo = ""
    print(f"\nhemotorch {arguments.command}: stopped{todo}", file=sys.stderr)
    return 130
