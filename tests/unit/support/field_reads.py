"""What an action reads of its spec, noted while it runs for real on a tiny data set, from TAO's own
specs for it made small by overrides."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import Workspace, open_workspace, results_folder, session_of, tiny_spec
from spec_files import write
from tao_specs import FORMS, as_overrides

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.deploy.tensorrt import Built, TensorRt
from rtdetr_slurm.engine.process.arguments import DeployOptions
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import FieldRef, Section, is_list, visit, walk
from rtdetr_slurm.vision import timing
from rtdetr_slurm.yaml_source import dotted, to_yaml

SHORT = ("train.num_epochs=1", "train.checkpoint_interval=1", "train.enable_ema=true")
WATCHED = (
    "dataset.val_data_sources=null",
    "train.optim.lr_scheduler=StepLR",
    "train.optim.optimizer=SGD",
    "train.checkpointer.enable_topk=true",
    "train.checkpointer.monitor=train_loss",
    "engine.early_stopping.patience=3",
    "engine.early_stopping.monitor=train_loss",
)
"""What else a training reads: it has its eye on a value, and another optimizer."""
VARIANTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (
        SHORT,
        (*SHORT, *WATCHED),
    ),
    "evaluate": ((), ("dataset.eval_class_ids=[1, 2]",)),
    "inference": (("inference.conf_threshold=0",), ()),
    "gen_trt_engine": (
        ("gen_trt_engine.batch_size=2",),
        (
            "gen_trt_engine.tensorrt={data_type: INT8, calibration: {cal_batches: 1}, "
            "layers_precision: ['*:fp32', 'backbone.conv1:int8']}",
            "dataset.quant_calibration_data_sources={image_dir: DATA/val/images, "
            "json_file: DATA/val/annotations.json}",
            "dataset.val_data_sources=null",
        ),
    ),
    "trt_evaluate": (("dataset.eval_class_ids=[1, 2]",),),
    "trt_inference": ((), ("dataset.val_data_sources=null",)),
    "export": (
        ("export.input_height=64", "export.input_width=64"),
        ("dataset.val_data_sources=null", "export.input_height=64", "export.input_width=64"),
    ),
    "quantize": (
        (
            "quantize.layers=[{module_name: 'encoder.fpn*', weights: {dtype: int8}, "
            "activations: {dtype: native}}]",
        ),
        (
            "quantize.skip_names=['encoder.*', 'backbone.layer*']",
            "dataset.quant_calibration_data_sources={image_dir: DATA/val/images, "
            "json_file: DATA/val/annotations.json}",
            "dataset.val_data_sources=null",
        ),
    ),
    "distill": (
        (
            *SHORT,
            "distill.bindings=[{student_module_name: srcs, teacher_module_name: srcs, "
            "criterion: IOU}]",
            f"distill.teacher={json.dumps(tiny_spec(Path(), Path())['model'])}",
        ),
        (
            *SHORT,
            "distill.bindings=[{student_module_name: encoder, teacher_module_name: encoder, "
            "criterion: L1}]",
            *WATCHED,
        ),
    ),
}
"""Overrides of the runs that together reach every option of an action; plain ones for others.
DATA is the folder of the data set."""


class Reads:
    """The fields of some experiments that were looked at, by their dotted names."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._sections: dict[int, tuple[Section, str]] = {}

    def watch(self, experiment: ExperimentConfig) -> None:
        self._sections[id(experiment)] = (experiment, "")
        for ref, value in visit(experiment):
            general = [part for part in ref.path if not isinstance(part, int)]
            name = ".".join(map(str, general))
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, Section):
                    self._sections[id(each)] = (each, f"{name}.")

    def note(self, section: Section, name: str) -> None:
        if name in type(section).model_fields and id(section) in self._sections:
            self.names.add(self._sections[id(section)][1] + name)

    @contextmanager
    def noted(self) -> Iterator[None]:
        def get(section: Section, name: str) -> object:
            self.note(section, name)
            return object.__getattribute__(section, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Section, "__getattribute__", get)
            yield


def run(workspace: Workspace, name: str, number: int, given: Sequence[str], reads: Reads) -> None:
    """All that reads the spec in a job: nodes and GPUs, the folder, the key, the action itself."""
    spec = write(workspace.root, to_yaml(FORMS[number](name)))
    small = as_overrides(tiny_spec(workspace.data, workspace.root / f"{name}-{number}"))
    chosen = {item.partition("=")[0]: item for item in (*small, *given)}
    loaded = load_spec(spec, [*chosen.values()], name)
    session = replace(session_of(loaded), deploy=DeployOptions(compute_capability="8.9"))
    reads.watch(loaded.experiment)
    module, _, function = str(ACTIONS[name].function).partition(":")
    with reads.noted(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled" if number else "offline")
        assert loaded.with_key_of({}) is loaded
        assert loaded.topology_of(name).num_gpus == 1
        assert results_folder(loaded.experiment, name) == session.results_dir
        getattr(importlib.import_module(module), function)(session)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("work")
    with open_workspace(folder) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "PACE", timing.Pace(0, 1, 0, 0))
        # Built for real in tests/deploy; here it would take most of the time.
        patch.setattr(TensorRt, "build", lambda *arguments: Built(b"a plan", None, ""))
        shutil.rmtree(made.data)
        write_sample(made.data, train=4, val=1, size=64)  # one step per epoch
        yield made


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Reads:
    reads = Reads()
    for number, overrides in enumerate(VARIANTS["train"]):
        run(workspace, "train", number, overrides, reads)
    return reads


def reads_of(name: str, workspace: Workspace, trained: Reads) -> Reads:
    if name == "train":
        return trained
    reads = Reads()
    (checkpoint,) = workspace.root.glob("train-0/train/*.pth")
    given = [
        f"{dotted(ref.path)}={checkpoint if ref.takes == 'checkpoint' else exported(workspace)}"
        for ref in walk(ExperimentConfig)
        if ref.extra("x-inferred") == "parent_model" and name in ref.required_by
    ]
    if "infer" in ACTIONS[name].reads:
        images = workspace.data / "val" / "images"
        given.append(f"dataset.infer_data_sources.image_dir=[{images}]")
    for number, overrides in enumerate(VARIANTS.get(name, ((),) * len(FORMS))):
        located = [one.replace("DATA", str(workspace.data)) for one in overrides]
        run(workspace, name, number, [*given, *located], reads)
    return reads


def exported(workspace: Workspace) -> Path:
    """The checkpoint as an ONNX file, which stands for an engine, too."""
    made = workspace.root / "export-0" / "export" / "rtdetr.onnx"
    if not made.exists():
        (checkpoint,) = workspace.root.glob("train-0/train/*.pth")
        given = (*VARIANTS["export"][0], f"export.checkpoint={checkpoint}")
        run(workspace, "export", 0, given, Reads())
    return made


def plain(ref: FieldRef) -> bool:
    """Whether a field holds a value of its own, and is not only a section around others."""
    return ref.nested is None or is_list(ref.info)


def check(name: str, workspace: Workspace, trained: Reads) -> None:
    """What an action honours it reads, and what it reads it honours."""
    fields = {
        dotted(ref.path).replace("[]", ""): ref for ref in walk(ExperimentConfig) if plain(ref)
    }
    honoured = {path for path, ref in fields.items() if name in ref.honoured_by}
    idle = {path for path, ref in fields.items() if name in ref.no_effect_in}
    read = reads_of(name, workspace, trained).names & set(fields)
    assert honoured - read == set(), f"declared as honoured by {name}, which never reads them"
    assert read - honoured - idle == set(), f"{name} reads them and does not declare it"
