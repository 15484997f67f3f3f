"""`rtdetr-slurm COMMAND …`: finds the command's module, runs it, maps errors to exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import UserError, near

PROGRAM = "rtdetr-slurm"

# Name → module and what --help says. A module is imported only when its command is chosen.
COMMANDS = {
    "submit": ("rtdetr_slurm.cli.submit", "check a spec, freeze it, and queue it"),
    "status": ("rtdetr_slurm.cli.status", "all runs in a table, or one run in detail"),
    "logs": ("rtdetr_slurm.cli.logs", "the log of a run"),
    "cancel": ("rtdetr_slurm.cli.cancel", "cancel a run"),
    "validate": ("rtdetr_slurm.cli.validate", "check a spec without submitting it"),
    "default-specs": ("rtdetr_slurm.cli.default_specs", "print a ready spec for an action"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the process exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return ExitCode.OK if arguments else ExitCode.BAD_REQUEST
    if arguments[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return ExitCode.OK
    name = arguments[0]
    if name not in COMMANDS:
        hint = near(name, COMMANDS)
        print(f"{PROGRAM}: there is no command '{name}'{hint}\n\n{_help()}", file=sys.stderr)
        return ExitCode.BAD_REQUEST
    module_name, summary = COMMANDS[name]
    command = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(f"{PROGRAM} {name}", description=summary)
    command.add_arguments(parser)
    # Overrides (key=value) and options may come in any order.
    code: int = command.run(parser.parse_intermixed_args(arguments[1:]))
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [argument ...]",
            "",
            "Train RT-DETR detectors on a Slurm cluster from one spec file.",
            "",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help says more; --version prints the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
