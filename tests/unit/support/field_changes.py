"""How every field of the spec is changed away from its default, and where its effect is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    "train.checkpointer.monitor": Change("val_loss", {**RANKED, "train.checkpointer.mode": "max"}),
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
    "engine.compile": "tests/processes/test_compile.py::"
    "test_a_compiled_training_is_the_same_but_for_rounding",
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
