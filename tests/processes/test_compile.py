"""`engine.compile`: what a compiled training comes to, and what it says where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from engine_support import Workspace, open_workspace
from model_support import images, small_model, targets

from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.compilation import configure
from rtdetr_slurm.runs.status import read_status

SMALL = (
    # Of one level, so that there is less to compile.
    "model.num_feature_levels=1",
    "model.return_interm_indices=[0]",
    "model.feat_strides=[4]",
    "model.feat_channels=[32]",
    "model.use_encoder_idx=[0]",
    "dataset.augmentation.multi_scales=[]",
    "train.activation_checkpoint=false",
    "train.num_epochs=1",
    "train.checkpoint_interval=1",
)


def test_backbone_and_encoder_are_one_graph_each() -> None:
    """Of all levels: nothing in them makes the compiler give up, and what it traces computes the
    same."""
    configure()
    results = []
    for compiled in (False, True):
        model = small_model(backbone="resnet_18_vd", freeze_norm=True).double().train()
        if compiled:
            for part in (model.backbone, model.encoder):
                part.compile(dynamic=False, fullgraph=True, backend="aot_eager")
        torch.manual_seed(7)
        outputs = model(images().double(), targets(3, 1))
        outputs["set_logits"].square().sum().backward()
        gradients = {name: one.grad for name, one in model.named_parameters()}
        results.append((outputs["set_logits"].detach(), gradients, dict(model.named_buffers())))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def quick_compiler(folder: Path) -> str:
    """A compiler that optimizes nothing: what the code comes to is compared, not how fast."""
    path = folder / "g++"
    path.write_text('#!/bin/sh\nexec /usr/bin/g++ "$@" -O0\n')
    path.chmod(0o755)
    return str(path)


def trained(
    workspace: Workspace, name: str, *overrides: str, cxx: str
) -> tuple[int, str, list[Path]]:
    """A training by the command: its exit code, what it prints, what it leaves in TMPDIR."""
    # Code without vector instructions is shorter, too.
    env = os.environ | {
        "RTDETR_ACCELERATOR": "cpu",
        "CXX": cxx,
        "ATEN_CPU_CAPABILITY": "default",
    }
    env.pop("TORCHINDUCTOR_CACHE_DIR", None)
    with tempfile.TemporaryDirectory() as scratch:  # a short path, which ranks do not replace
        done = subprocess.run(
            [
                *(sys.executable, "-m", "rtdetr_slurm.engine.process.entry"),
                *("train", "-e", str(workspace.spec_file())),
                *(f"results_dir={workspace.root / name}", *SMALL, *overrides),
            ],
            env=env | {"TMPDIR": scratch},
            capture_output=True,
            text=True,
            check=False,
        )
        left = list(Path(scratch).glob("rtdetr-*"))
    return done.returncode, done.stdout + done.stderr, left


def test_a_compiled_training_is_the_same_but_for_rounding(tmp_path: Path) -> None:
    losses, weights = [], []
    cxx = quick_compiler(tmp_path)
    with open_workspace(tmp_path) as workspace:
        for name, compiled in (("plain", "false"), ("compiled", "true")):
            code, output, left = trained(workspace, name, f"engine.compile={compiled}", cxx=cxx)
            assert code == 0, output
            assert not left
            assert ("encoder are compiled" in output) == (name == "compiled")
            results = tmp_path / name / "train"
            lines = read_status(results / "status.json")
            kpis = [kpi for line in lines if (kpi := line.get("kpi"))]
            losses.append([(kpi["train_loss"], kpi["val_loss"]) for kpi in kpis])
            weights.append(load_checkpoint(results / "model_epoch_000.pth")["model"])
    plain, compiled = weights
    assert plain.keys() == compiled.keys()
    different = [name for name, one in plain.items() if not torch.equal(one, compiled[name])]
    assert different, "nothing was compiled"
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-3)


def test_without_a_compiler_nothing_is_trained(tmp_path: Path) -> None:
    with open_workspace(tmp_path) as workspace:
        code, output, left = trained(workspace, "none", "engine.compile=true", cxx="no-such-c++")
    assert code == 2
    assert "engine.compile: torch.compile does not work here" in output
    assert "C++ compiler" in output
    assert "Traceback" not in output
    assert not left
    assert not [*(tmp_path / "none" / "train").glob("*.pth")]
