"""Each rule between fields: what breaks it, what it says, and what keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import NEEDED, load, only, problems

DEIM = "engine.recipe=deim"
BROKEN = [
    # action, overrides, message (whole or its beginning)
    ("train", ["train.num_gpus=2", "train.gpu_ids=[0]"],
     "override 'train.num_gpus=2': train.num_gpus: found 2, but train.gpu_ids lists 1 ([0]); "
     "allowed: train.num_gpus 1, or train.gpu_ids [0, 1]"),
    ("train", ["train.gpu_ids=[0, 1, 2]", "train.num_gpus=1"],
     "override 'train.num_gpus=1': train.num_gpus: found 1, but train.gpu_ids lists 3"),
    ("evaluate", ["evaluate.num_gpus=2", "evaluate.gpu_ids=[0]"],
     "evaluate.num_gpus: found 2, but evaluate.gpu_ids lists 1"),
    ("inference", ["inference.num_gpus=2", "inference.gpu_ids=[0]"],
     "inference.num_gpus: found 2, but inference.gpu_ids lists 1"),
    ("train", ["train.num_gpus=2", "train.gpu_ids=[1, 1]"],
     "train.gpu_ids: found 1 twice; allowed: each once"),
    ("train", ["model.num_feature_levels=2", "model.use_encoder_idx=[1]",
               "model.feat_channels=[256, 256]", "model.feat_strides=[8, 16]"],
     "model.return_interm_indices: found 3 entries; allowed: 2, one for each of "
     "model.num_feature_levels"),
    ("train", ["model.feat_channels=[256, 256]"],
     "model.feat_channels: found 2 entries; allowed: 3"),
    ("train", ["model.feat_strides=[8, 16]"], "model.feat_strides: found 2 entries; allowed: 3"),
    ("train", ["model.return_interm_indices=[0, 2, 3]", "model.feat_strides=[4, 16, 32]"],
     "model.return_interm_indices: found [0, 2, 3]; allowed: stages that follow one another"),
    ("train", ["model.feat_strides=[4, 8, 16]"],
     "model.feat_strides: found [4, 8, 16]; allowed: [8, 16, 32], the strides of stages [1, 2, 3]"),
    ("train", ["model.feat_channels=[128, 256, 512]"],
     "model.feat_channels: found [128, 256, 512]; allowed: the same width on every level"),
    ("train", ["model.nheads=6"],
     "override 'model.nheads=6': model.feat_channels: found 256; allowed: multiples of "
     "model.nheads (6)"),
    ("train", ["model.hidden_dim=100"], "model.hidden_dim: found 100; allowed: multiples of 8"),
    ("train", ["model.feat_channels=[250, 250, 250]", "model.nheads=5"],
     "model.feat_channels: found 250; allowed: multiples of 4"),
    ("train", ["model.use_encoder_idx=[3]"],
     "model.use_encoder_idx[0]: found 3; allowed: 0..2, the levels of model.num_feature_levels"),
    ("train", ["model.use_encoder_idx=[2, 2]"], "model.use_encoder_idx: found 2 twice"),
    ("train", ["model.eval_idx=6"],
     "model.eval_idx: found 6; allowed: -1..5, as model.dec_layers is 6"),
    ("train", ["model.dec_layers=3", "model.eval_idx=3"],
     "model.eval_idx: found 3; allowed: -1..2"),
    ("train", ["model.loss_types=[vfl, vfl]"], "model.loss_types: found 'vfl' twice"),
    ("train", ["model.num_select=301", "dataset.num_classes=1"],
     "model.num_select: found 301; allowed: ≤ 300 (model.num_queries 300 × dataset.num_classes 1)"),
    ("evaluate", ["dataset.eval_class_ids=[80]"],
     "dataset.eval_class_ids[0]: found 80; allowed: 0..79, as dataset.num_classes is 80"),
    ("evaluate", ["dataset.eval_class_ids=[1, 1]"], "dataset.eval_class_ids: found 1 twice"),
    ("evaluate", ["dataset.eval_class_ids=[]"],
     "dataset.eval_class_ids: found []; allowed: at least one class id, or null for all"),
    ("train", ["train.validation_interval=11"],
     "train.validation_interval: found 11; allowed: ≤ 10, which is train.num_epochs"),
    ("train", ["train.num_epochs=2", "train.checkpoint_interval=3"],
     "train.checkpoint_interval: found 3; allowed: ≤ 2"),
    ("distill", ["train.num_gpus=2", "train.gpu_ids=[0]"],
     "train.num_gpus: found 2, but train.gpu_ids lists 1"),
    ("distill", ["train.validation_interval=11"], "train.validation_interval: found 11"),
    ("train", ["train.optim.lr_steps=[5, 5]"],
     "train.optim.lr_steps: found [5, 5]; allowed: epochs in rising order"),
    ("train", ["train.distributed_strategy=fsdp"],
     "train.distributed_strategy: found 'fsdp', which splits the model over several GPUs; allowed "
     "with one: 'ddp'"),
    ("distill", ["train.distributed_strategy=fsdp", "train.num_gpus=2", "train.precision=bf16"],
     "train.precision: found 'bf16'; allowed with train.distributed_strategy 'fsdp': 'fp16', or"),
    ("train", ["train.distributed_strategy=fsdp", "train.num_nodes=2", "train.enable_ema=true",
               "train.ema.cpu_offload=true"],
     "train.ema.cpu_offload: found true; allowed with train.distributed_strategy 'fsdp': false"),
    ("evaluate", ["evaluate.input_height=640"],
     "override 'evaluate.input_height=640': evaluate.input_width: missing; it must be given with "
     "evaluate.input_height"),
    ("inference", ["inference.input_width=640"], "inference.input_height: missing; it must be"),
    ("evaluate", ["evaluate.batch_size=0"], "evaluate.batch_size: found 0; allowed: -1, or ≥ 1"),
    ("inference", ["inference.batch_size=0"], "inference.batch_size: found 0"),
    ("export", ["export.batch_size=0"], "export.batch_size: found 0"),
    ("gen_trt_engine", ["gen_trt_engine.batch_size=0"], "gen_trt_engine.batch_size: found 0"),
    ("gen_trt_engine", ["gen_trt_engine.tensorrt.opt_batch_size=8"],
     "gen_trt_engine.tensorrt.opt_batch_size: found 8; allowed: min_batch_size ≤ opt_batch_size ≤ "
     "max_batch_size (found 1, 8, 4)"),
    ("gen_trt_engine", ["gen_trt_engine.batch_size=5"],
     "gen_trt_engine.batch_size: found 5; allowed: 1..4"),
    ("gen_trt_engine", ["gen_trt_engine.tensorrt.layers_precision=[head]"],
     "gen_trt_engine.tensorrt.layers_precision[0]: found 'head'; allowed: the name of a layer"),
    ("quantize", ["quantize.mode=static_ptq",
                  "dataset.quant_calibration_data_sources={image_dir: /i, json_file: /j}"],
     "quantize.mode: found 'static_ptq'; allowed with backend 'torchao': 'weight_only_ptq'"),
    ("quantize", ["quantize.backend=modelopt.pytorch"],
     "override 'quantize.backend=modelopt.pytorch': quantize.mode: found 'weight_only_ptq'"),
    ("quantize", ["quantize.mode=static_ptq", "quantize.backend=modelopt.pytorch"],
     "dataset.quant_calibration_data_sources: missing, and dataset.train_data_sources, which"),
    ("distill", ["distill.bindings[0].student_module_name=dsrcs"],
     "distill.bindings[0].teacher_module_name: found 'srcs'; allowed with criterion IOU: the "
     "student's, 'dsrcs'"),
    ("distill", ["distill.bindings[0]={student_module_name: a, teacher_module_name: srcs, "
                 "criterion: L2}", "distill.teacher.num_feature_levels=4"],
     "distill.teacher.return_interm_indices: found 3 entries; allowed: 4"),
    ("train", [DEIM, "model.loss_types=[boxes]"],
     "override 'model.loss_types=[boxes]': model.loss_types: found ['boxes']; allowed with "
     "engine.recipe 'deim': with vfl"),
    ("train", [DEIM, "dataset.batch_size=1"], "dataset.batch_size: found 1; allowed with"),
    ("train", [DEIM, "engine.batch=auto"], "engine.batch: found 'auto'; allowed with"),
    ("train", [DEIM, "train.optim.lr_scheduler=StepLR"],
     "train.optim.lr_scheduler: found 'StepLR'; allowed with engine.recipe 'deim', which has a "
     "loss and a learning rate of its own: nothing, or the default, 'MultiStep'"),
    ("train", [DEIM, "train.optim.lr_steps=[5]"], "train.optim.lr_steps: found [5]; allowed with"),
    ("train", [DEIM, "train.optim.lr_step_size=5"], "train.optim.lr_step_size: found 5; allowed"),
    ("train", [DEIM, "train.optim.lr_decay=0.5"], "train.optim.lr_decay: found 0.5; allowed with"),
    ("distill", [DEIM, "model.alpha=0.5"], "model.alpha: found 0.5; allowed with"),
    ("distill", [DEIM, "model.gamma=1.5"], "model.gamma: found 1.5; allowed with"),
    ("train", ["engine.sampling.source_weights=[1, 2]"],
     "engine.sampling.source_weights: found 2; allowed: 1, one for each of "
     "dataset.train_data_sources"),
    ("train", ["engine.sampling.source_weights=[2]"],
     "engine.sampling.source_weights: found [2.0], which changes nothing"),
    ("train", ["engine.sampling.source_weights=[-1]"],
     "engine.sampling.source_weights[0]: found -1; allowed: ≥ 0"),
    ("train", ["engine.sampling.class_weights={a: 1}"],
     "engine.sampling.class_weights: found no weight but 1"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "overrides", "message"), BROKEN, ids=lambda value: str(value))
def test_broken(tmp_path: Path, action: str, overrides: list[str], message: str) -> None:
    lines = problems(tmp_path, "", *NEEDED[action], *overrides, action=action)
    assert any(message in line for line in lines), lines


def test_iou_binds_two_features_only(tmp_path: Path) -> None:
    binding = "distill.bindings=[{student_module_name: x, teacher_module_name: x, criterion: IOU}]"
    needed = [text for text in NEEDED["distill"] if "bindings" not in text]
    lines = problems(tmp_path, "", *needed, binding, action="distill")
    assert len(lines) == 2
    assert "found 'x'; allowed with criterion IOU: 'srcs' or 'dsrcs'" in lines[0]


KEPT = [
    ("train", ["model.feat_channels=[384, 384, 384]", "model.dim_feedforward=2048"]),  # R101
    ("train", ["model.expansion=0.5", "model.dec_layers=3"]),  # R18
    ("train", ["model.eval_idx=2"]),  # R50-m
    ("train", ["model.return_interm_indices=[0, 1, 2, 3]", "model.num_feature_levels=4",
               "model.feat_channels=[256, 256, 256, 256]", "model.feat_strides=[4, 8, 16, 32]",
               "model.use_encoder_idx=[3]"]),
    ("train", ["model.use_encoder_idx=[]"]),
    ("train", [DEIM, "model.vfl_loss_coef=2", "train.optim.warmup_steps=10"]),
    ("train", ["engine.recipe=rtdetrv2", "train.optim.lr_scheduler=StepLR"]),
    ("train", ["engine.sampling.class_weights={a: 1, b: 0}"]),
    ("train", ["train.num_gpus=2", "train.gpu_ids=[2, 3]"]),
    ("train", ["train.num_epochs=3", "train.validation_interval=3"]),
    ("evaluate", ["train.num_epochs=2", "train.validation_interval=3"]),  # not evaluate's business
    ("train", ["dataset.num_classes=5", "dataset.eval_class_ids=[1, 2, 3, 4]"]),
    ("evaluate", ["evaluate.input_height=480", "evaluate.input_width=640"]),
    ("gen_trt_engine", ["gen_trt_engine.tensorrt.layers_precision=['/a/b:fp16']",
                        "gen_trt_engine.batch_size=4"]),
    ("quantize", ["quantize.mode=static_ptq", "quantize.backend=modelopt.pytorch",
                  "dataset.quant_calibration_data_sources={image_dir: /i, json_file: /j}"]),
]  # fmt: skip


@pytest.mark.parametrize(("action", "overrides"), KEPT, ids=lambda value: str(value))
def test_kept(tmp_path: Path, action: str, overrides: list[str]) -> None:
    load(tmp_path, "", *NEEDED[action], *overrides, action=action)


def test_sections_of_others_are_checked_but_need_not_be_complete(tmp_path: Path) -> None:
    load(tmp_path, "export: {}\nevaluate: {checkpoint: ''}\n", *NEEDED["train"], action="train")
    line = only(problems(tmp_path, "evaluate: {batch_size: 0}\n", *NEEDED["train"], action="train"))
    assert line.startswith("spec.yaml:1:24: evaluate.batch_size: found 0")
    line = only(
        problems(tmp_path, "export: {opset_version: 0}\n", *NEEDED["train"], action="train")
    )
    assert line == "spec.yaml:1:25: export.opset_version: found 0; allowed: ≥ 1"
