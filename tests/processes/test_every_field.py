"""Every field of the spec, changed away from its default: something else comes of the action, or it
is refused by name, or it is declared to change nothing.

What comes of an action is what it leaves: weights and optimizer, the KPIs in status.json, the
content of its results, the names of all files; and how it loads images and sets up cuDNN.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from engine_support import open_workspace, session_of, tiny_spec
from field_reads import plain
from torch.utils.data import DataLoader

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.deploy.tensorrt import Built, Log, Request, TensorRt
from rtdetr_slurm.engine.process.arguments import DeployOptions
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.spec import LoadedSpec, load_spec
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import FieldRef, walk
from rtdetr_slurm.vision import timing
from rtdetr_slurm.yaml_source import dotted

REPO = Path(__file__).parents[2]
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """How a field is changed, and where its effect is seen.

    Attributes:
        value: None is any other value that is valid. {names} in it are of `Place`.
        given: fields that both runs have otherwise than the tiny spec.
        beside: fields that have to change with it.
        action: that shows the effect; None: the first that honours the field.
        refused: the effect is that the other fields do not go with it.
    """

    value: Any = None
    given: Values = field(default_factory=dict)
    beside: Values = field(default_factory=dict)
    action: str | None = None
    refused: bool = False


def binding(name: str, criterion: str) -> dict[str, Any]:
    return {"student_module_name": name, "teacher_module_name": name, "criterion": criterion}


LAYER = {"weights": {"dtype": "int8"}, "activations": {"dtype": "native"}}
TWO_EPOCHS = {"train.num_epochs": 2}
THREE_EPOCHS = {"train.num_epochs": 3}
PATIENT = {**THREE_EPOCHS, "engine.early_stopping.patience": 1}
RANKED = {**TWO_EPOCHS, "train.checkpointer.enable_topk": True}
EMA = {"train.enable_ema": True, **TWO_EPOCHS}
ALL = {"inference.conf_threshold": 0.0}
SQUARE = {**ALL, "inference.input_height": 64, "inference.input_width": 64}
CLASSES = {"distill.bindings": [binding("srcs", "IOU")]}
FEATURES = {"distill.bindings": [binding("encoder", "L2")]}
OWN = {"image_dir": "{data}/train/images", "json_file": "{data}/train/annotations.json"}
OTHER = {
    "image_dir": "{other}/train/images",
    "json_file": "{other}/train/annotations.json",
}
CALIBRATION = "dataset.quant_calibration_data_sources"
STATIC = {
    "quantize.backend": "modelopt.pytorch",
    "quantize.mode": "static_ptq",
    "quantize.layers": [
        {
            "module_name": "encoder.fpn_blocks.0.conv1.*",
            "weights": {"dtype": "int8"},
            "activations": {"dtype": "int8"},
        }
    ],
    f"{CALIBRATION}.image_dir": "{data}/train/images",
    f"{CALIBRATION}.json_file": "{data}/train/annotations.json",
}
OPT = "gen_trt_engine.tensorrt.opt_batch_size"
INT8 = {
    "gen_trt_engine.tensorrt.data_type": "INT8",
    "gen_trt_engine.tensorrt.layers_precision": ["*:fp32", "backbone.conv1:int8"],
    "gen_trt_engine.tensorrt.calibration.cal_image_dir": ["{data}/train/images"],
}
CHANGED: dict[str, Change] = {
    "results_dir": Change("{root}/elsewhere"),
    "model.backbone": Change("resnet_34"),
    "model.pretrained_backbone_path": Change("{second}"),
    "model.return_interm_indices": Change([1, 2], beside={"model.feat_strides": [8, 16]}),
    "model.feat_channels": Change([64, 64]),
    "model.hidden_dim": Change(64),
    "model.nheads": Change(4),
    "model.use_encoder_idx": Change([0]),
    "model.dim_feedforward": Change(32),
    "model.depth_mult": Change(2),
    "model.expansion": Change(1.0),
    "model.eval_idx": Change(0),
    "model.num_select": Change(5, ALL, action="inference"),
    "model.class_cost": Change(50.0),
    "model.bbox_cost": Change(0.0),
    "model.dn_number": Change(40),
    "model.giou_cost": Change(500.0),
    "model.frozen_fm.checkpoint": Change("{second}"),
    "quantize.backend_kwargs": Change({"a": 1}),
    "train.checkpointer.replace_periodic": Change(True, RANKED),
    "train.checkpointer.save_top_k": Change(2, RANKED),
    "train.checkpointer.monitor": Change("val_loss", RANKED),
    "train.checkpointer.mode": Change("max", {**RANKED, "train.checkpointer.monitor": "val_loss"}),
    "train.checkpointer.filename": Change("other_{epoch:03d}", RANKED),
    "train.checkpointer.dirpath": Change("{root}/elsewhere", RANKED),
    "train.checkpointer.auto_insert_metric_name": Change(True, RANKED),
    "engine.sampling.class_weights": Change({"circle": 5.0}),
    "dataset.augmentation.preserve_aspect_ratio": Change(
        True, {"dataset.augmentation.eval_spatial_size": [64, 96]}
    ),
    "train.checkpoint_interval_unit": Change("step", {"dataset.batch_size": 2}),
    "train.optim.momentum": Change(0.1, {**TWO_EPOCHS, "train.optim.optimizer": "SGD"}),
    "engine.accumulate": Change(2, {"dataset.batch_size": 2}),
    "engine.early_stopping.patience": Change(1, THREE_EPOCHS),
    "engine.early_stopping.monitor": Change("train_loss", PATIENT),
    "engine.early_stopping.min_delta": Change(
        100.0, {**PATIENT, "engine.early_stopping.monitor": "train_loss"}
    ),
    "engine.sampling.source_weights": Change(
        [5.0, 1.0], {"dataset.train_data_sources": [OWN, OTHER]}
    ),
    "model.loss_types": Change(["vfl"]),
    "model.distillation_loss_coef": Change(7.0),
    "model.load_teacher_enc_dec": Change(True),
    "dataset.train_data_sources": Change([OTHER]),
    "dataset.train_data_sources[].image_dir": Change("{other}/train/images"),
    "dataset.train_data_sources[].json_file": Change("{other}/train/annotations.json"),
    "dataset.val_data_sources.image_dir": Change("{other}/val/images"),
    "dataset.val_data_sources.json_file": Change("{other}/val/annotations.json"),
    "dataset.test_data_sources.image_dir": Change("{other}/val/images"),
    "dataset.test_data_sources.json_file": Change("{other}/val/annotations.json"),
    "dataset.infer_data_sources.image_dir": Change(["{other}/val/images"], ALL),
    "dataset.infer_data_sources.classmap": Change("{data}/names.txt", ALL),
    f"{CALIBRATION}.image_dir": Change("{other}/train/images", STATIC),
    f"{CALIBRATION}.json_file": Change("{other}/train/annotations.json", STATIC),
    "dataset.num_classes": Change(5),
    "dataset.eval_class_ids": Change([1]),
    "dataset.batch_size": Change(2),
    "dataset.workers": Change(2),
    "dataset.augmentation.iou_crop_prob": Change(0.0),
    "dataset.augmentation.train_spatial_size": Change(
        [64, 96],
        {
            "dataset.augmentation.multi_scales": [],
        },
    ),
    "dataset.augmentation.multi_scales": Change([96]),
    "dataset.augmentation.eval_spatial_size": Change([64, 96]),
    "train.num_epochs": Change(2),
    "train.validation_interval": Change(2, TWO_EPOCHS),
    "train.checkpoint_interval": Change(2, TWO_EPOCHS),
    "train.pretrained_model_path": Change("{second}"),
    "train.resume_training_checkpoint_path": Change("{first}", TWO_EPOCHS),
    "train.results_dir": Change("{root}/elsewhere"),
    "train.precision": Change("bf16"),
    "train.optim.warmup_steps": Change(10),
    "train.optim.lr_scheduler": Change("StepLR", {**TWO_EPOCHS, "train.optim.lr_step_size": 1}),
    "train.optim.lr_steps": Change([1], TWO_EPOCHS),
    "train.optim.lr_step_size": Change(1, {**TWO_EPOCHS, "train.optim.lr_scheduler": "StepLR"}),
    "train.optim.lr_decay": Change(0.5, {**TWO_EPOCHS, "train.optim.lr_steps": [1]}),
    "train.ema.decay": Change(0.5, EMA),
    "train.ema.every_n_steps": Change(2, EMA),
    "train.ema.validate_original_weights": Change(True, EMA),
    "train.freeze": Change(["encoder"]),
    **{f"{action}.gpu_ids": Change([1]) for action in ("train", "evaluate", "inference")},
    "evaluate.checkpoint": Change("{second}"),
    "evaluate.conf_threshold": Change(0.9),
    "evaluate.batch_size": Change(1),
    "evaluate.input_height": Change(96, {"evaluate.input_height": 64, "evaluate.input_width": 64}),
    "evaluate.input_width": Change(96, {"evaluate.input_height": 64, "evaluate.input_width": 64}),
    "evaluate.results_dir": Change("{root}/elsewhere"),
    "inference.checkpoint": Change("{second}", ALL),
    "inference.conf_threshold": Change(0.0),
    "inference.color_map": Change(dict.fromkeys(("circle", "square", "triangle"), "red"), ALL),
    "inference.outline_width": Change(9, ALL),
    "inference.batch_size": Change(1),
    "inference.input_height": Change(96, SQUARE),
    "inference.input_width": Change(96, SQUARE),
    "inference.results_dir": Change("{root}/elsewhere"),
    "export.checkpoint": Change("{second}"),
    "export.onnx_file": Change("{root}/elsewhere/other.onnx"),
    "export.input_height": Change(96),
    "export.input_width": Change(96),
    "export.batch_size": Change(2),
    "export.opset_version": Change(18),
    "export.results_dir": Change("{root}/elsewhere"),
    "distill.pretrained_teacher_model_path": Change("{second}"),
    "distill.bindings": Change([binding("dsrcs", "IOU")]),
    "distill.bindings[].student_module_name": Change("backbone", FEATURES),
    "distill.bindings[].teacher_module_name": Change("backbone", FEATURES),
    "distill.bindings[].criterion": Change("L1", FEATURES),
    "distill.bindings[].weight": Change(3.0),
    "distill.results_dir": Change("{root}/elsewhere"),
    "quantize.model_path": Change("{second}"),
    "quantize.device": Change("cpu"),
    "quantize.backend": Change("modelopt.pytorch", beside={"quantize.mode": "static_ptq"}),
    "quantize.mode": Change("static_ptq", refused=True),
    "quantize.algorithm": Change("entropy", STATIC),
    "quantize.layers[].activations.dtype": Change("native", STATIC),
    "quantize.layers": Change([{**LAYER, "module_name": "encoder.pan*"}]),
    "quantize.layers[].module_name": Change("encoder.pan*"),
    "quantize.layers[].weights.dtype": Change("fp8_e4m3fn"),
    "quantize.skip_names": Change(["encoder.fpn*.0.conv1.*"]),
    "quantize.results_dir": Change("{root}/elsewhere"),
    "gen_trt_engine.onnx_file": Change("{graph_2}"),
    "gen_trt_engine.trt_engine": Change("{root}/elsewhere.engine"),
    "gen_trt_engine.batch_size": Change(2),
    "gen_trt_engine.timing_cache": Change("{root}/timings"),
    "gen_trt_engine.tensorrt.data_type": Change("FP16"),
    "gen_trt_engine.tensorrt.min_batch_size": Change(2, beside={OPT: 2}),
    "gen_trt_engine.tensorrt.layers_precision": Change(
        ["decoder.*:fp32"], {"gen_trt_engine.tensorrt.data_type": "FP16"}
    ),
    **{
        f"gen_trt_engine.tensorrt.calibration.{name}": Change(value, INT8)
        for name, value in (
            ("cal_image_dir", ["{other}/train/images"]),
            ("cal_cache_file", "{root}/elsewhere.json"),
            ("cal_batch_size", 2),
            ("cal_batches", 2),
        )
    },
    "gen_trt_engine.results_dir": Change("{root}/elsewhere"),
}
"""Fields for which not any other value will do."""

ENCRYPTED = "tests/processes/test_encryption.py::test_nobody_sees_it_and_nothing_holds_it"
QUANTIZED = "tests/processes/test_quantize.py::test_a_checkpoint"
WANDB_RUN = "tests/processes/test_wandb.py::test_a_training_and_its_continuation"
WANDB_FILES = "tests/processes/test_wandb.py::test_code_and_tensorboards_file"
VERBOSE = "tests/unit/engine/actions/test_export.py::test_verbose_prints_the_graph"
GPU = "tests/gpu/test_training.py"
SEEN_ELSEWHERE = {
    "dataset.pin_memory": f"{GPU}::test_batches_come_from_pinned_memory",
    "dataset.remap_mscoco_category": "tests/unit/engine/actions/test_chain.py::"
    "test_evaluate_and_inference",
    "train.ema.cpu_offload": f"{GPU}::test_averaged_weights_may_be_in_host_memory",
    "train.activation_checkpoint": f"{GPU}::test_recomputed_activations_change_no_gradient",
    **{
        f"wandb.{name}": WANDB_RUN
        for name in ("project", "entity", "group", "name", "tags", "reinit")
    },
    **{f"wandb.{name}": WANDB_FILES for name in ("run_id", "save_code", "sync_tensorboard")},
    "wandb.enable": "tests/unit/engine/training/test_wandb_login.py::test_off_is_off",
    "train.distributed_strategy": "tests/processes/test_fsdp.py::test_each_rank_holds_a_share",
    "engine.elastic": "tests/processes/test_elastic.py::test_every_image_once_whoever_has_it",
    "encryption_key": ENCRYPTED,
    "evaluate.is_quantized": QUANTIZED,
    "inference.is_quantized": QUANTIZED,
    "export.is_quantized": QUANTIZED,
    "export.verbose": VERBOSE,
    "evaluate.trt_engine": "tests/deploy/test_scoring.py::test_scores",
    "inference.trt_engine": "tests/deploy/test_scoring.py::test_inference",
}
"""What this test cannot see, and the test that does."""

SHORT = {
    "train.num_epochs": 1,
    "train.checkpoint_interval": 1,
    "dataset.augmentation.multi_scales": [64],
    "train.optim.warmup_steps": 0,
    "export.input_height": 64,
    "export.input_width": 64,
    "quantize.layers": [{**LAYER, "module_name": "encoder.fpn*"}],
    "distill.teacher": tiny_spec(Path(), Path())["model"],
    "dataset.infer_data_sources.image_dir": ["{data}/val/images"],
    "evaluate.checkpoint": "{first}",
    "inference.checkpoint": "{first}",
    "export.checkpoint": "{first}",
    "distill.pretrained_teacher_model_path": "{first}",
    **CLASSES,
    "quantize.model_path": "{first}",
    "gen_trt_engine.onnx_file": "{graph}",
}
FIELDS = {dotted(ref.path): ref for ref in walk(ExperimentConfig) if plain(ref)}
FIELDS = {name: ref for name, ref in FIELDS.items() if not name.startswith("distill.teacher.")}
"""All but those of the teacher, which are those of `model`."""
RUN_HERE = ("train", "evaluate", "inference", "export", "distill", "quantize", "gen_trt_engine")
OBSERVED = [
    name
    for name, ref in FIELDS.items()
    if {*ref.honoured_by} & {*RUN_HERE} and name not in SEEN_ELSEWHERE
]


COMMON = ("model.", "dataset.", "train.", "engine.", "wandb.")


class Place:
    """Data, two trained detectors, and what came of the runs with the defaults."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root, self.data, self.other = root, data, root / "other"
        shutil.rmtree(data)
        write_sample(data, train=4, val=3, size=64)  # one step per epoch
        write_sample(self.other, train=4, val=3, size=64, seed=1)
        (data / "names.txt").write_text("background\nround\nsquare\nother\n")
        self._known: dict[str, Any] = {}
        for name, seed in (("first", 1), ("second", 2)):
            folder = root / name
            self.run("train", {"train.seed": seed}, folder)
            (folder / "train" / "model_epoch_000.pth").rename(root / f"{name}.pth")
        for name, opset in (("graph", 17), ("graph_2", 18)):
            folder = root / name
            self.run("export", {"export.opset_version": opset, "export.batch_size": -1}, folder)
            (folder / "export" / "rtdetr.onnx").rename(root / f"{name}.onnx")

    def run(self, action: str, values: Values, folder: Path) -> Any:
        """What comes of an action, with the tiny spec and these values."""
        loaded = self.load(action, values, folder)
        deploy = DeployOptions(compute_capability="8.9")
        session = replace(session_of(loaded), deploy=deploy)
        loaders: list[tuple[Any, ...]] = []
        made = DataLoader.__init__

        def noted(loader: Any, *args: Any, **kwargs: Any) -> None:
            batches = getattr(kwargs["batch_sampler"], "batches", kwargs["batch_sampler"])
            sizes = [*map(len, batches)] if isinstance(batches, list) else []
            loaders.append((kwargs["num_workers"], *sizes))
            made(loader, *args, **kwargs)

        printed = StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            patch.setattr(DataLoader, "__init__", noted)
            patch.setattr(TensorRt, "build", built)
            patch.setattr(timing, "PACE", timing.Pace(0, 1, 0, 0))
            module, _, function = str(ACTIONS[action].function).partition(":")
            getattr(importlib.import_module(module), function)(session)
        cudnn = torch.backends.cudnn
        setup = [loaded.topology_of(action), cudnn.deterministic, cudnn.benchmark, loaders]
        return [*setup, len(printed.getvalue().splitlines()), *left_in(folder)]

    def default(self, action: str, given: Values) -> Any:
        key = json.dumps([action, given])
        if key not in self._known:
            self._known[key] = self.run(action, given, self._folder())
        return self._known[key]

    def changed(self, action: str, values: Values) -> Any:
        return self.run(action, values, self._folder())

    def load(self, action: str, values: Values, folder: Path) -> LoadedSpec:
        folder.mkdir(parents=True, exist_ok=True)
        spec = tiny_spec(self.data, folder)
        del spec["evaluate"]
        for name, value in (SHORT | values).items():
            if name.startswith((*COMMON, f"{action}.")) or "." not in name:
                put(spec, name, self.filled(value, folder))
        path = self.root / "spec.yaml"
        path.write_text(json.dumps(spec))
        return load_spec(path, (), action)

    def answer(self, action: str, values: Values) -> str:
        """Why a spec is refused, or what is noted of it."""
        try:
            return "\n".join(self.load(action, values, self.root / "load").notes)
        except UserError as error:
            return str(error)

    def filled(self, value: Any, folder: Path) -> Any:
        """A value with its {names} filled in."""
        text = json.dumps(value)
        for file in ("first.pth", "second.pth", "graph.onnx", "graph_2.onnx"):
            text = text.replace(f"{{{Path(file).stem}}}", str(self.root / file))
        for name, path in (("data", self.data), ("other", self.other), ("root", self.root)):
            text = text.replace(f"{{{name}}}", str(folder if name == "root" else path))
        return json.loads(text)

    def _folder(self) -> Path:
        return self.root / f"run-{len([*self.root.glob('run-*')])}"


def built(_: TensorRt, onnx: Path | bytes, request: Request, __: Log) -> Built:
    """What TensorRT is asked for, in place of the engine, which tests/deploy builds."""
    graph = onnx.read_bytes() if isinstance(onnx, Path) else onnx
    asked = f"{hashlib.sha256(graph).hexdigest()} {request}"
    return Built(asked.encode(), b"timings", "")


def put(spec: dict[str, Any], name: str, value: Any) -> None:
    """Set a field by its dotted name; of a list of sections that of the first."""
    *sections, last = name.split(".")
    node: Any = spec
    for section in sections:
        key = section.removesuffix("[]")
        empty: Any = [{}] if section.endswith("[]") else {}
        node = node.setdefault(key, empty)
        node = node[0] if section.endswith("[]") else node
    node[last] = deepcopy(value)


# --- what an action has left ------------------------------------------------------------------
WITHOUT_CONTENT = ("experiment.yaml", "claim.json", "progress.json", "report.html")
"""Files that repeat the spec, or tell of times."""
VOLATILE = re.compile(r"time|date|eta|seconds|spec|version|sha256|bytes|path|claim|start|latency")
"""Keys of records that repeat the spec, or tell of times."""


def left_in(folder: Path) -> Iterator[Any]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if "tfevents" in name or path.name == "spec.yaml":
            continue
        yield name, None if path.name in WITHOUT_CONTENT else content_of(path, folder)


def content_of(path: Path, folder: Path) -> Any:
    data = path.read_bytes()
    if path.suffix == ".pth" and zipfile.is_zipfile(path):
        return plain_content(torch.load(path, weights_only=True))
    if path.suffix == ".json":
        lines = data.decode().replace(str(folder), "").splitlines()
        whole = path.name != "status.json"
        return plain_content([json.loads(one) for one in (["".join(lines)] if whole else lines)])
    return hashlib.sha256(data).hexdigest()


def plain_content(value: Any) -> Any:
    """Something that compares: tensors as digests, without what is volatile."""
    if isinstance(value, torch.Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.shape), hashlib.sha256(content).hexdigest()
    if isinstance(value, Mapping):
        items = ((key, plain_content(each)) for key, each in value.items())
        return {str(key): each for key, each in items if not VOLATILE.search(str(key))}
    if isinstance(value, list | tuple):
        return [plain_content(each) for each in value]
    return value


# --- the tests --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_workspace(tmp_path_factory.mktemp("fields")) as opened:
        yield Place(opened.root, opened.data)


def another(ref: FieldRef, name: str, default: Any) -> Any:
    """A valid value that is not `default`."""
    info = ref.info
    choices = get_args(info.annotation)
    if isinstance(default, bool):
        return not default
    if choices and all(isinstance(choice, str) for choice in choices):
        return next(choice for choice in choices if choice != default)
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 if default else 0.5
    if isinstance(default, str):
        return "other"
    raise AssertionError(f"{name} is a new kind of field: say in CHANGED how it is changed")


@pytest.mark.parametrize("action", RUN_HERE)
def test_the_same_spec_leaves_the_same(place: Place, action: str) -> None:
    """Else nothing below would mean anything."""
    assert place.default(action, {}) == place.changed(action, {})


@pytest.mark.parametrize("name", OBSERVED)
def test_a_field_has_an_effect(place: Place, name: str) -> None:
    ref, change = FIELDS[name], CHANGED.get(name, Change())
    action = change.action or next(one for one in RUN_HERE if one in ref.honoured_by)
    value = change.value
    if value is None:
        loaded = place.load(action, change.given, place.root / "load")
        value = another(ref, name, value_at(loaded.resolved(), name))
    values = {**change.given, **change.beside, name: value}
    if change.refused:
        with pytest.raises(UserError, match=re.escape(name)):
            place.load(action, values, place.root / "load")
        return
    same = place.changed(action, values) == place.default(action, change.given)
    assert not same, f"{action} leaves the same with {name} {value!r}"


NOT_YET = [
    (name, action)
    for name, ref in FIELDS.items()
    for action in ref.used_by
    if action in RUN_HERE and action not in {*ref.honoured_by, *ref.no_effect_in}
]


@pytest.mark.parametrize(("name", "action"), NOT_YET)
def test_what_an_action_would_ignore_is_told(place: Place, name: str, action: str) -> None:
    ref, change = FIELDS[name], CHANGED.get(name, Change())
    value = change.value if change.value is not None else another(ref, name, ref.default)
    assert name in place.answer(action, {name: value})


def test_every_field_is_observed_or_declared_to_change_nothing() -> None:
    unseen = [
        name
        for name, ref in FIELDS.items()
        if name not in OBSERVED and name not in SEEN_ELSEWHERE and ref.honoured_by
    ]
    assert unseen == []
    for name, test in SEEN_ELSEWHERE.items():
        file, _, function = test.partition("::")
        assert f"def {function}(" in (REPO / file).read_text(), name
