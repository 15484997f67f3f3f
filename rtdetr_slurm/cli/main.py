"""`rtdetr-slurm COMMAND …`: finds the command's module, runs it, maps errors to exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rtdetr_slurm import __version__
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.errors import RequestError, SiteError, UserError, explained, near

PROGRAM = "rtdetr-slurm"

# Name, of one word or two → module and what --help says. A module is imported only when its command
# is chosen.
COMMANDS = {
    "submit": ("rtdetr_slurm.cli.submit", "check a spec, freeze it, and queue it"),
    "status": ("rtdetr_slurm.cli.status", "all runs in a table, or one run in detail"),
    "logs": ("rtdetr_slurm.cli.logs", "the log of a run"),
    "resume": ("rtdetr_slurm.cli.resume", "go on with a run: queue what is missing of it"),
    "cancel": ("rtdetr_slurm.cli.cancel", "cancel a run"),
    "automl space": ("rtdetr_slurm.cli.automl.space", "what a spec has searched, and how far"),
    "automl status": (
        "rtdetr_slurm.cli.automl.status",
        "leaderboard, trials, budget and time left of a search",
    ),
    "automl extend": ("rtdetr_slurm.cli.automl.extend", "add to the budget of a search"),
    "automl stop": ("rtdetr_slurm.cli.automl.stop", "have no further trial of a search begin"),
    "automl resume": ("rtdetr_slurm.cli.automl.resume", "go on with a search"),
    "init": ("rtdetr_slurm.cli.init", "a spec for a data set, with a reason for each choice"),
    "data check": (
        "rtdetr_slurm.cli.data.check",
        "all that is wrong with the data of a spec, and what they are like",
    ),
    "data convert": (
        "rtdetr_slurm.cli.data.convert",
        "a data set of YOLO, Pascal VOC or a labelling tool as COCO",
    ),
    "validate": ("rtdetr_slurm.cli.validate", "check a spec without submitting it"),
    "doctor": ("rtdetr_slurm.cli.doctor", "check what on this cluster is as jobs need it"),
    "render": ("rtdetr_slurm.cli.render", "fill the administrators' sbatch templates"),
    "verify": (
        "rtdetr_slurm.cli.verify",
        "whether a model and all that it comes from is as it was",
    ),
    "reproduce": (
        "rtdetr_slurm.cli.reproduce",
        "run a training again as it was, and compare the checkpoints",
    ),
    "cache list": ("rtdetr_slurm.cli.cache.entries", "what is kept of data that was fetched"),
    "cache prune": ("rtdetr_slurm.cli.cache.prune", "remove what nobody has wanted for long"),
    "cache verify": (
        "rtdetr_slurm.cli.cache.verify",
        "whether what is kept is as it was fetched",
    ),
    "image": ("rtdetr_slurm.cli.image", "build or pull a container image, once"),
    "site": ("rtdetr_slurm.cli.site", "write a site profile to begin with"),
    "default-specs": ("rtdetr_slurm.cli.default_specs", "print a ready spec for an action"),
    "completion": ("rtdetr_slurm.cli.completion", "tab completion for bash, zsh and fish"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the process exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        terminal.open_streams()
        try:
            return _run(arguments)
        finally:
            terminal.flush()
    except UserError as error:
        return _refused(error)
    except KeyboardInterrupt as interrupt:
        terminal.last_words(str(interrupt))  # a new line after ^C, and what has come of it
        return 130
    except BrokenPipeError:
        terminal.abandon_streams()  # the reader has gone, and wants to hear nothing
        return ExitCode.FAILED
    except MemoryError:
        return _refused(SiteError("this machine, or the limit ulimit -v, leaves too little memory"))
    except OSError as error:
        return _refused(explained(error))


def _in_a_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise RequestError(
            f"the current folder is gone, or is not yours ({error.strerror}); change to another"
        ) from None


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: object = None) -> None:  # noqa: ARG002
        """On stdout; argparse itself says nothing when that fails."""
        terminal.out_lines(self.format_help())


def _refused(error: UserError) -> int:
    terminal.last_words(f"{PROGRAM}: {error}")
    return error.exit_code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        terminal.out_lines(_help())
        return ExitCode.OK if arguments else ExitCode.BAD_REQUEST
    if arguments[0] == "--version":
        terminal.out(f"{PROGRAM} {__version__}")
        return ExitCode.OK
    name, rest = named(arguments)
    if name not in COMMANDS:
        hint = near(name, COMMANDS)
        terminal.note(f"{PROGRAM}: there is no command '{name}'{hint}\n\n{_help()}")
        return ExitCode.BAD_REQUEST
    _in_a_folder()
    module_name, summary = COMMANDS[name]
    command = importlib.import_module(module_name)
    parser = _Parser(f"{PROGRAM} {name}", description=summary)
    command.add_arguments(parser)
    # Overrides (key=value) and options may come in any order.
    code: int = command.run(parser.parse_intermixed_args(rest))
    return code


def named(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command that a line begins with, and the rest of the line."""
    two = " ".join(words[:2])
    number = 2 if two in COMMANDS or any(one.startswith(f"{words[0]} ") for one in COMMANDS) else 1
    return " ".join(words[:number]), [*words[number:]]


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
