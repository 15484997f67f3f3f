"""The table of actions: what there is to do, where it runs, what it reads, what proves it.

Whoever needs to know something about an action asks this table; an action without an entry is an
error, never another action. Standard library only: login node, compute node and container share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rtdetr_slurm.contract import (
    CHECKPOINT_GLOB,
    METRICS_JSON,
    MODEL_FILES,
    PREDICTIONS_JSON,
    QUANTIZE_JSON,
    SPEC_YAML,
    Infer,
    Kpi,
)
from rtdetr_slurm.errors import RequestError, near

ENGINE, DEPLOY = "rtdetr", "rtdetr-deploy"
"""The two programs: in the training image, and in the TensorRT image."""

EngineName = Literal["rtdetr", "tao"]
"""Whose images the programs are in: this project's, or NVIDIA TAO's, whose programs for training
and for deployment are both called `rtdetr`."""
EngineOf = Callable[[str], EngineName]
"""Whose image an action runs in, as a site profile has it."""
TAO_FOLDER = "/rtdetr-job"
"""Where a node's own folder is seen in TAO's images, whose entry point puts its path on a command
line that it splits at spaces again."""

MODULES: Mapping[str, str] = {
    ENGINE: "rtdetr_slurm.engine.process.entry",
    DEPLOY: "rtdetr_slurm.deploy.entry",
}
"""What `python -m` runs in place of a program, where no container brings it."""


Model = Literal["checkpoint", "quantized", "onnx", "engine"]
"""Forms of a detector that one action leaves and another takes."""

MODEL_WORDS: Mapping[Model, str] = {
    "checkpoint": "a checkpoint",
    "quantized": "a quantized checkpoint",
    "onnx": "an ONNX file",
    "engine": "a TensorRT engine",
}


@dataclass(frozen=True)
class Artefact:
    """What must be there and whole before an action counts as done.

    Attributes:
        kind: `checkpoint`: the newest file of the results folder that fits `name`, a glob; `file`:
            the file of that name in the results folder; `files`: one that fits one of several
            globs, with spaces between them, or more; `field`: the file that the spec's field of
            that dotted name names; `kpi`: a number of that name in status.json.
        default: of a `field`: the file's name in the results folder where the field is empty.
    """

    kind: Literal["checkpoint", "file", "files", "field", "kpi"]
    name: str
    default: str = ""


@dataclass(frozen=True)
class Action:
    """One row of the table.

    Attributes:
        section: the spec section that is the action's own; it holds its `results_dir`.
        topology: the section whose num_nodes, num_gpus and gpu_ids it obeys; None: one GPU, the
            `gpu_id` of its own section.
        role: of the site profile: what kind of node it runs on, in which image.
        reads: the data sources it opens: `train` is dataset.train_data_sources, and so on.
        may_read: those that it makes use of where the spec has them, and does without else.
        artefact: what proves its success.
        leaves: what later actions can take from it as their model; None: nothing.
        tao_artefact: what proves it where TAO's image leaves something else.
        resumable: whether a start that was interrupted goes on where it stood; others begin anew.
        skips_bad_images: whether it names images that cannot be used and goes on, where nobody has
            said otherwise.
        searches: whether it is a search for hyper-parameters where nobody has said otherwise; other
            trainings are where it is asked for.
        function: `module:function` that one rank runs.
    """

    name: str
    section: str
    topology: str | None
    role: Literal["train", "cpu", "tensorrt"]
    reads: tuple[str, ...]
    artefact: Artefact
    function: str
    may_read: tuple[str, ...] = ()
    leaves: Model | None = None
    resumable: bool = False
    skips_bad_images: bool = False
    searches: bool = False
    tao_artefact: Artefact | None = None

    @property
    def program(self) -> str:
        """What runs it: the program of the image that its role has."""
        return DEPLOY if self.role == "tensorrt" else ENGINE

    @property
    def gpu_section(self) -> str:
        """The spec section that its nodes and GPUs come from."""
        return self.topology or self.section

    def proof(self, engine: EngineName) -> Artefact:
        """What proves its success."""
        return (engine == "tao" and self.tao_artefact) or self.artefact

    def command(self, engine: EngineName) -> tuple[str, ...]:
        """What runs it, in a folder that holds its spec, and of TAO's is TAO_FOLDER."""
        if engine == "tao":
            # In TAO's deploy image they have no names of their own.
            verb = self.name.removeprefix("trt_")
            return (ENGINE, verb, "-e", f"{TAO_FOLDER}/{SPEC_YAML}")
        return (self.program, self.name, "-e", SPEC_YAML)

    @property
    def trains(self) -> bool:
        """Whether its results are checkpoints, epoch by epoch."""
        return self.artefact.kind == "checkpoint"


_CHECKPOINT = Artefact("checkpoint", CHECKPOINT_GLOB)
_METRICS = Artefact("file", METRICS_JSON)
_PREDICTIONS = Artefact("file", PREDICTIONS_JSON)
_LABELS = Artefact("files", "labels/*.txt */labels/*.txt")

ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in (
        Action(
            name="train",
            section="train",
            topology="train",
            role="train",
            reads=("train", "val"),
            artefact=_CHECKPOINT,
            leaves="checkpoint",
            resumable=True,
            searches=True,
            function="rtdetr_slurm.engine.actions.train:train",
        ),
        Action(
            name="evaluate",
            section="evaluate",
            topology="evaluate",
            role="train",
            reads=("test",),
            artefact=_METRICS,
            function="rtdetr_slurm.engine.actions.evaluate:evaluate",
            tao_artefact=Artefact("kpi", Kpi.TEST_MAP),
        ),
        Action(
            name="inference",
            section="inference",
            topology="inference",
            role="train",
            reads=("infer",),
            artefact=_PREDICTIONS,
            skips_bad_images=True,
            function="rtdetr_slurm.engine.actions.inference:inference",
            tao_artefact=_LABELS,
        ),
        Action(
            name="export",
            section="export",
            topology=None,
            role="train",
            reads=(),
            may_read=("val", "test"),
            artefact=Artefact("field", "export.onnx_file", MODEL_FILES[Infer.CREATE_ONNX_FILE]),
            leaves="onnx",
            function="rtdetr_slurm.engine.actions.export:export",
        ),
        Action(
            name="distill",
            section="distill",
            topology="train",
            role="train",
            reads=("train", "val"),
            artefact=_CHECKPOINT,
            leaves="checkpoint",
            resumable=True,
            function="rtdetr_slurm.engine.actions.distill:distill",
        ),
        Action(
            name="quantize",
            section="quantize",
            topology=None,
            role="train",
            reads=(),
            may_read=("quant_calibration", "train", "val"),
            artefact=Artefact("file", QUANTIZE_JSON),
            leaves="quantized",
            function="rtdetr_slurm.engine.actions.quantize:quantize",
            tao_artefact=Artefact("files", "*.pth *.onnx"),
        ),
        Action(
            name="gen_trt_engine",
            section="gen_trt_engine",
            topology=None,
            role="tensorrt",
            reads=(),
            may_read=("val", "test", "quant_calibration", "calibration"),
            artefact=Artefact(
                "field", "gen_trt_engine.trt_engine", MODEL_FILES[Infer.CREATE_ENGINE_FILE]
            ),
            leaves="engine",
            function="rtdetr_slurm.deploy.actions.gen_trt_engine:gen_trt_engine",
        ),
        Action(
            name="trt_evaluate",
            section="evaluate",
            topology="evaluate",
            role="tensorrt",
            reads=("test",),
            artefact=_METRICS,
            function="rtdetr_slurm.deploy.actions.evaluate:trt_evaluate",
            tao_artefact=Artefact("file", "results.json"),
        ),
        Action(
            name="trt_inference",
            section="inference",
            topology="inference",
            role="tensorrt",
            reads=("infer",),
            may_read=("val", "test"),
            artefact=_PREDICTIONS,
            skips_bad_images=True,
            function="rtdetr_slurm.deploy.actions.inference:trt_inference",
            tao_artefact=_LABELS,
        ),
    )
}


def get_action(name: str) -> Action:
    """The row called `name`.

    Raises:
        RequestError: there is none; names the nearest.
    """
    if name in ACTIONS:
        return ACTIONS[name]
    hint = near(name, ACTIONS)
    raise RequestError(f"no action '{name}'; allowed: {', '.join(ACTIONS)}{hint}")


def deploy_action(word: str) -> str:
    """The action that TAO's deploy command calls by this word: `evaluate` is trt_evaluate there."""
    return name if (name := f"trt_{word}") in ACTIONS else word


def own_engine(_action: str) -> EngineName:
    """This project's engine, for every action."""
    return "rtdetr"


def last_that_leaves(model: Model, names: Sequence[str]) -> int | None:
    """Index of the last action in a chain that leaves a model in this form; None: none does."""
    indices = [index for index, name in enumerate(names) if get_action(name).leaves == model]
    return indices[-1] if indices else None
