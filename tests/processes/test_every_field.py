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
from collections.abc import Iterator
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from engine_support import open_workspace, session_of, tiny_spec
from field_changes import CHANGED, CLASSES, LAYER, SEEN_ELSEWHERE, Change, Values
from field_reads import plain
from left_behind import left_in
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
