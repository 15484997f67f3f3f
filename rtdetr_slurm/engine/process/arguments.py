"""The command line of `rtdetr` and of `rtdetr-deploy`, in TAO's form."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm import __version__
from rtdetr_slurm.actions import ACTIONS, DEPLOY, ENGINE, deploy_action, get_action
from rtdetr_slurm.contract import BAD_IMAGES, COSTS, RUNTIMES
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.overrides import NUM_GPUS

DEFAULT_SPECS = "default_specs"
CONVERT = "convert"
"""Takes files and no spec; its arguments are engine/convert.py's."""
SWEEP = "sweep"
"""Of the program of deployment, with arguments of its own: deploy/variants.py's."""


@dataclass(frozen=True)
class DeployOptions:
    """What the job asks of a deploy action beyond the spec's fields.

    Attributes:
        runtime: one of RUNTIMES; None: what the file is for.
        max_map_drop: points of mAP; None: the default of the precision.
        compute_capability: `8.9`, of the GPU to build for; None: of the one that is here.
    """

    runtime: str | None = None
    max_map_drop: float | None = None
    compute_capability: str | None = None

    def command_line(self) -> list[str]:
        """The arguments that parse to this."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        flags = {name: f"{v:g}" if isinstance(v, float) else v for name, v in given.items()}
        return [word for name, v in flags.items() for word in (f"--{name.replace('_', '-')}", v)]


@dataclass(frozen=True)
class Arguments:
    """A parsed command line.

    Attributes:
        action: by its name in the table.
        bad_images: `stop`, `skip`, or None where the spec decides.
        costs: of COSTS, what a training reports besides its scores.
    """

    action: str
    spec: Path
    overrides: tuple[str, ...]
    bad_images: str | None
    costs: tuple[str, ...] = ()
    deploy: DeployOptions = DeployOptions()

    def command_line(self) -> list[str]:
        """The arguments that parse to this."""
        line = [self.action, "-e", str(self.spec), *self.overrides]
        line += [BAD_IMAGES, self.bad_images] if self.bad_images else []
        line += ["--costs", ",".join(self.costs)] if self.costs else []
        return line + self.deploy.command_line()


def parse(argv: Sequence[str] | None, program: str) -> Arguments:
    """Parse the arguments after the program's name.

    Raises:
        RequestError: an action that this program does not run, or a missing spec file.
    """
    options = _parser(program).parse_intermixed_args(argv)
    action = named(options.action, program)
    overrides = (*options.overrides, *_of_flags(options))
    malformed = [item for item in overrides if "=" not in item]
    if malformed:
        raise RequestError(f"unexpected argument '{malformed[0]}': overrides are written key=value")
    if options.spec is None and action != DEFAULT_SPECS:
        raise RequestError(f"{program} {options.action} needs a spec file: -e FILE")
    costs: tuple[str, ...] = ()
    if program == ENGINE:
        costs = options.costs
        if costs and not get_action(options.action).trains:
            raise RequestError(f"--costs: {options.action} reports none; train and distill do")
    deploy = DeployOptions()
    if program == DEPLOY:
        deploy = DeployOptions(options.runtime, options.max_map_drop, options.compute_capability)
    return Arguments(action, options.spec or Path(), overrides, options.bad_images, costs, deploy)


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


def named(word: str, program: str) -> str:
    """The action that a program calls by this word: its name, and in TAO's deploy command
    `evaluate` and `inference`, too.

    Raises:
        RequestError: this program does not run it; says where it belongs.
    """
    if word == DEFAULT_SPECS:
        return word
    row = get_action(deploy_action(word) if program == DEPLOY else word)
    if row.program == program:
        return row.name
    image = "TensorRT" if row.program == DEPLOY else "training"
    kind = "a deploy action" if row.program == DEPLOY else "no deploy action"
    raise RequestError(
        f"{word} is {kind}: it belongs to {row.program}, the program of the {image} image. "
        f"{program} runs: {_runs(program)}"
    )


def _runs(program: str) -> str:
    own = [name for name, action in ACTIONS.items() if action.program == program]
    return ", ".join([*own, DEFAULT_SPECS])


_ABOUT = {
    ENGINE: "Train and evaluate RT-DETR inside the container or beside it. `rtdetr default_specs "
    "results_dir=DIR` writes a complete spec to start from, and "
    f"`rtdetr {CONVERT} --help` says how weights are exchanged with Hugging Face transformers.",
    DEPLOY: "Build TensorRT engines of exported detectors, and score and run them. As in TAO's "
    "deploy command, `evaluate` is trt_evaluate and `inference` is trt_inference here. "
    f"`rtdetr-deploy {SWEEP} --help` says how a checkpoint is tried at several sizes.",
}


def _points(text: str) -> float:
    """Points of mAP."""
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: 0..100, in points of mAP")
    return points


def _costs(text: str) -> tuple[str, ...]:
    """Names of COSTS, with commas between them."""
    names = tuple(text.split(","))
    if {*names} - {*COSTS} or len({*names}) < len(names):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: {','.join(COSTS)}, or one")
    return names


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=_ABOUT[program])
    parser.add_argument("action", help=f"one of {_runs(program)}")
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
        BAD_IMAGES,
        choices=("stop", "skip"),
        help="what to do at an image that is missing, broken or not as annotated (default: the "
        "spec's job.bad_images)",
    )
    if program == ENGINE:
        parser.add_argument(
            "--costs",
            type=_costs,
            default=(),
            metavar="NAME,…",
            help="with every epoch of a training, what its detector costs: parameters (how many), "
            "latency_ms (of one image on this device)",
        )
    if program == DEPLOY:
        parser.add_argument(
            "--runtime",
            choices=RUNTIMES,
            help="what runs the detector (default: TensorRT, as the engine was built)",
        )
        parser.add_argument(
            "--max-map-drop",
            type=_points,
            metavar="POINTS",
            help="points of mAP that the engine may lose against the checkpoint (default: 0.5, and "
            "1.5 of INT8)",
        )
        parser.add_argument(
            "--compute-capability",
            metavar="N.N",
            help="of the GPU to build for, where it is not here (TensorRT-RTX only)",
        )
    parser.add_argument("--version", action="version", version=f"rtdetr-slurm {__version__}")
    return parser
