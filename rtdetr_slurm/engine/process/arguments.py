"""The command line of `rtdetr`, in TAO's form."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm import __version__
from rtdetr_slurm.actions import AVAILABLE, DEPLOY, get_action
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.overrides import NUM_GPUS

DEFAULT_SPECS = "default_specs"
CONVERT = "convert"
"""Takes files and no spec; its arguments are engine/convert.py's."""


@dataclass(frozen=True)
class Arguments:
    """A parsed command line.

    Attributes:
        bad_images: `stop`, `skip`, or None where the spec decides.
    """

    action: str
    spec: Path
    overrides: tuple[str, ...]
    bad_images: str | None

    def command_line(self) -> list[str]:
        """The arguments that parse to this."""
        line = [self.action, "-e", str(self.spec), *self.overrides]
        return line + (["--bad-images", self.bad_images] if self.bad_images else [])


def parse(argv: Sequence[str] | None) -> Arguments:
    """Parse the arguments after the program's name.

    Raises:
        RequestError: an action that this program does not run, or a missing spec file.
    """
    options = _parser().parse_intermixed_args(argv)
    check_action(options.action)
    overrides = (*options.overrides, *_of_flags(options))
    malformed = [item for item in overrides if "=" not in item]
    if malformed:
        raise RequestError(f"unexpected argument '{malformed[0]}': overrides are written key=value")
    if options.spec is None and options.action != DEFAULT_SPECS:
        raise RequestError(f"rtdetr {options.action} needs a spec file: -e FILE")
    return Arguments(options.action, options.spec or Path(), overrides, options.bad_images)


_FLAGS = {
    "results_dir": ("-r", "DIR", "results_dir"),
    "key": ("-k", "KEY", "encryption_key"),
    "gpus": ("-g", "N", NUM_GPUS),
}
"""Flags that TAO's commands had before they took overrides: short form, value, the override."""


def _of_flags(options: argparse.Namespace) -> list[str]:
    """The overrides that TAO's flags stand for."""
    given = {override: getattr(options, name) for name, (_, _, override) in _FLAGS.items()}
    return [
        f"{override}={value if override == NUM_GPUS else json.dumps(value, ensure_ascii=False)}"
        for override, value in given.items()
        if value is not None
    ]


def check_action(action: str) -> None:
    """Refuse an action by name where this version or this program does not run it."""
    if action == DEFAULT_SPECS:
        return
    row = get_action(action)
    runs = ", ".join([*AVAILABLE, DEFAULT_SPECS])
    if row.program == DEPLOY:
        raise RequestError(
            f"{action} is a deploy action: it belongs to the program {DEPLOY} in the TensorRT "
            f"image, which is not available in this version. rtdetr runs: {runs}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rtdetr",
        description="Train and evaluate RT-DETR inside the container or beside it. "
        "`rtdetr default_specs results_dir=DIR` writes a complete spec to start from, and "
        f"`rtdetr {CONVERT} --help` says how weights are exchanged with Hugging Face transformers.",
    )
    parser.add_argument("action", help=f"one of {', '.join([*AVAILABLE, DEFAULT_SPECS])}")
    parser.add_argument(
        "-e", "--experiment_spec_file", dest="spec", type=Path, metavar="FILE", help="the spec"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values that replace the spec's"
    )
    for name, (short, value, override) in _FLAGS.items():
        parser.add_argument(
            short,
            f"--{name}",
            metavar=value,
            help=f"TAO's flag for the override {override}={value}",
        )
    parser.add_argument(
        "--bad-images",
        choices=("stop", "skip"),
        help="what to do at an image that is missing, broken or not as annotated (default: the "
        "spec's job.bad_images)",
    )
    parser.add_argument("--version", action="version", version=f"rtdetr-slurm {__version__}")
    return parser
