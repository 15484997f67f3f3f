"""What actions need, alone and in a chain, and what they would have to ignore."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_files import EVALUATE, NEEDED, TRAIN, load, only, problems

from rtdetr_slurm.spec import Topology
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.spec.needs import taken_from
from rtdetr_slurm.yaml_source import dotted

CHAIN = (
    TRAIN
    + """\
  test_data_sources: {image_dir: /data/images, json_file: /data/test.json}
train: {num_gpus: 2, gpu_ids: [0, 1]}
"""
)


@pytest.mark.parametrize(
    ("action", "overrides", "message"),
    [
        (
            "train",
            ("engine.batch=auto", "train.distributed_strategy=fsdp"),
            "engine.batch: found 'auto'; allowed with train.distributed_strategy 'fsdp'",
        ),
        (
            "train",
            ("engine.compile=true",),
            "train.activation_checkpoint: found true; allowed with engine.compile true: false",
        ),
        (
            "train",
            ("engine.compile=true", "train.distributed_strategy=fsdp"),
            "train.distributed_strategy: found 'fsdp'; allowed with engine.compile true: 'ddp'",
        ),
        (
            "distill",
            ("engine.compile=true",),
            "engine.compile: found true; action 'distill' does not have this option, which works "
            "in train; allowed: its default, false",
        ),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, action: str, overrides: tuple[str, ...], message: str
) -> None:
    assert message in "\n".join(problems(tmp_path, TRAIN, *overrides, action=action))


# --- chains ----------------------------------------------------------------------------------
def test_a_chain_is_one_spec(tmp_path: Path) -> None:
    loaded = load(tmp_path, CHAIN, "job.then=[evaluate]", action="train")
    assert (loaded.action, loaded.actions) == ("train", ("train", "evaluate"))
    assert loaded.topology == loaded.topology_of("train") == Topology(1, 2, (0, 1))
    assert loaded.topology_of("evaluate") == Topology(1, 1, (0,))
    assert loaded.notes == ()
    resolved = loaded.resolved()
    assert resolved["evaluate"]["checkpoint"] == ""
    assert resolved["train"]["num_gpus"] == 2
    alone = load(tmp_path, CHAIN, action="train")
    assert alone.actions == ("train",)
    assert "evaluate" not in alone.resolved()


def test_what_any_action_of_a_chain_needs_is_needed(tmp_path: Path) -> None:
    lines = problems(
        tmp_path, TRAIN, "job.then=[evaluate, inference, gen_trt_engine]", action="train"
    )
    assert [line.split(": ", 1)[1].rsplit(":", 1)[0] for line in lines] == [
        "dataset.test_data_sources: missing; action 'evaluate' needs it",
        "dataset.infer_data_sources: missing; action 'inference' needs it",
        "gen_trt_engine.onnx_file: missing; action 'gen_trt_engine' needs it",
    ]


def test_what_any_action_of_a_chain_would_ignore_is_refused(tmp_path: Path) -> None:
    override = "evaluate.trt_engine=/e"
    load(tmp_path, CHAIN, override, action="train")
    line = only(problems(tmp_path, CHAIN, override, "job.then=[evaluate]", action="train"))
    assert "evaluate.trt_engine: found '/e'; action 'evaluate' does not have this option" in line
    assert "'evaluate'" in line
    # Rules between fields hold for the sections of all of them.
    line = only(problems(tmp_path, CHAIN + "evaluate: {batch_size: 0}\n",
                         "job.then=[evaluate]", action="train"))  # fmt: skip
    assert "evaluate.batch_size: found 0" in line


def test_training_and_a_parent_run_give_the_checkpoint(tmp_path: Path) -> None:
    test_set = only([text for text in NEEDED["evaluate"] if text.startswith("dataset")])
    line = only(problems(tmp_path, "", test_set, action="evaluate"))
    assert "evaluate.checkpoint: missing; action 'evaluate' needs it" in line
    loaded = load(tmp_path, "", test_set, "job.parent=train-1", action="evaluate")
    assert loaded.experiment.evaluate.checkpoint == ""
    assert loaded.notes == ()
    # A training that comes later gives nothing.
    chain = [test_set, *NEEDED["train"], "job.then=[train]"]
    assert "evaluate.checkpoint: missing" in only(problems(tmp_path, "", *chain, action="evaluate"))
    # What is made goes to the stage's own folder; what it is made of may come from the parent.
    assert "gen_trt_engine.onnx_file: missing" in only(
        problems(tmp_path, "", "job.then=[]", action="gen_trt_engine")
    )
    load(tmp_path, "", "job.parent=export-1", action="gen_trt_engine")


@pytest.mark.parametrize("action", ["evaluate", "inference", "export", "quantize", "distill"])
def test_the_field_that_a_parent_fills(tmp_path: Path, action: str) -> None:
    inferred = ("checkpoint=/c", "model_path=/c", "teacher_model_path=/t")
    needed = [text for text in NEEDED[action] if not text.endswith(inferred)]
    assert len(needed) == len(NEEDED[action]) - 1
    assert only(problems(tmp_path, "", *needed, action=action))
    load(tmp_path, "", *needed, "job.parent=r", action=action)
    load(tmp_path, TRAIN, *needed, f"job.then=[{action}]", action="train")


def test_the_nearest_stage_that_leaves_such_a_model_counts() -> None:
    fields = {dotted(ref.path): ref for ref in walk(ExperimentConfig)}

    def taken(field: str, *before: str, parent: str | None = None) -> str | None:
        """What fills a field of the action that its section is of."""
        action = {"evaluate.trt_engine": "trt_evaluate"}.get(field, field.split(".")[0])
        return taken_from(fields[field], [*before, action], len(before), parent)

    assert taken("evaluate.checkpoint") is None
    assert taken("evaluate.checkpoint", parent="r") == "job.parent, r"
    assert taken("evaluate.checkpoint", "train", "export", parent="r") == "train"
    assert taken("evaluate.checkpoint", "train", "evaluate", "distill") == "distill"
    assert taken("distill.pretrained_teacher_model_path", "train") == "train"
    assert taken("gen_trt_engine.onnx_file", "train") is None
    assert taken("gen_trt_engine.onnx_file", "train", "export") == "export"
    assert taken("evaluate.trt_engine", "export", parent="r") == "job.parent, r"
    assert taken("evaluate.trt_engine", "export", "gen_trt_engine", parent="r") == "gen_trt_engine"
    # A training goes on from another run's, and never from that of its own chain.
    assert taken("train.resume_training_checkpoint_path", parent="r") == "job.parent, r"
    assert taken("train.resume_training_checkpoint_path", "evaluate", parent="r")
    assert taken("train.resume_training_checkpoint_path", "train", parent="r") is None


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["job.checkpoint=last"], "job.checkpoint: found last"),
        (["job.then=[{action: evaluate, checkpoint: epoch:0}]", "evaluate.checkpoint=/c"],
         "job.then[0].checkpoint: found epoch:0"),
        (["job.then=[{action: evaluate, checkpoint: newest}]"],
         "job.then[0].checkpoint: found 'newest'; allowed: best, last, latest, or epoch:N"),
    ],
)  # fmt: skip
def test_a_choice_of_a_checkpoint_that_nobody_takes_is_refused(
    tmp_path: Path, overrides: list[str], place: str
) -> None:
    assert place in only(problems(tmp_path, CHAIN, *overrides, action="train"))
    entry = "job.then=[{action: evaluate, checkpoint: epoch:12}]"
    assert load(tmp_path, CHAIN, entry, action="train").job.then[0].checkpoint == "epoch:12"
    chosen = load(tmp_path, CHAIN, "job.then=[evaluate]", "job.checkpoint=last", action="train")
    assert chosen.job.checkpoint == "last"
    load(tmp_path, CHAIN, "job.parent=r", "job.checkpoint=best", action="train")


def test_a_checkpoint_that_is_given_wins_and_that_is_said(tmp_path: Path) -> None:
    given = "evaluate.checkpoint=/mine.pth"
    loaded = load(tmp_path, CHAIN, given, "job.then=[evaluate]", action="train")
    assert loaded.experiment.evaluate.checkpoint == "/mine.pth"
    assert loaded.notes == (
        "evaluate.checkpoint: /mine.pth is given, so evaluate does not take that of train",
    )
    loaded = load(tmp_path, EVALUATE, "job.parent=train-1")
    assert loaded.notes == (
        "evaluate.checkpoint: /runs/model_epoch_009.pth is given, so evaluate does not take that "
        "of job.parent, train-1",
    )
    assert load(tmp_path, CHAIN, given, action="train").notes == ()


def test_quantize_asks_for_calibration_images_only(tmp_path: Path) -> None:
    loaded = load(tmp_path, "", *NEEDED["quantize"], action="quantize")
    assert loaded.experiment.dataset.train_data_sources is None
    static = ["quantize.mode=static_ptq", "quantize.backend=modelopt.pytorch"]
    line = only(problems(tmp_path, "", *NEEDED["quantize"], *static, action="quantize"))
    assert "dataset.quant_calibration_data_sources: missing, and dataset.train_data_s" in line
    assert "quantize.mode 'static_ptq' needs images to calibrate on" in line
    source = "dataset.quant_calibration_data_sources={image_dir: /i, json_file: /j}"
    load(tmp_path, "", *NEEDED["quantize"], *static, source, action="quantize")
    # A training set may be in the file, and stands in for it.
    load(tmp_path, TRAIN, *NEEDED["quantize"], *static, action="quantize")


# --- options that would be ignored -----------------------------------------------------------
@pytest.mark.parametrize(
    "override",
    [
        "model.frozen_fm.enabled=true",
    ],
)
def test_train_refuses_what_it_would_ignore(tmp_path: Path, override: str) -> None:
    name = override.split("=")[0]
    line = only(problems(tmp_path, TRAIN, override, action="train"))
    assert line.startswith(f"override '{override}': {name}: found ")
    assert (
        "action 'train' does not have this option, which works in NVIDIA TAO's image alone" in line
    )


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (["dataset.dataset_type=default"], "dataset.dataset_type: without effect here, as the "
         "loading processes share one copy of the annotations in any case"),
        (["train.optim.momentum=0.5"], "train.optim.momentum: without effect here, as "
         "train.optim.optimizer is AdamW"),
        (["train.optim.monitor_name=train_loss"], "train.optim.monitor_name: without effect here"),
        (["model.clip_max_norm=1.0"], "as train.clip_grad_norm is what clips the gradient"),
        (["model.backbone_names=[b]", "model.linear_proj_names=[l]"],
         "model.backbone_names, model.linear_proj_names: without effect here, as they name"),
        (["wandb.enable=false", "wandb.project=mine", "wandb.tags=[a]"],
         "wandb.project, wandb.tags: without effect here, as wandb.enable is false"),
        (["train.checkpointer.save_top_k=3"], "train.checkpointer.save_top_k: without effect here, "
         "as train.checkpointer.enable_topk is false"),
        (["model.frozen_fm.backbone=radio_v3-b"], "as model.frozen_fm.enabled is false"),
    ],
)  # fmt: skip
def test_options_that_change_no_result_are_taken_and_that_is_said(
    tmp_path: Path, overrides: list[str], note: str
) -> None:
    loaded = load(tmp_path, TRAIN, *overrides, action="train")
    assert note in only([*loaded.notes])


def test_options_of_other_actions_and_defaults_are_passed_over(tmp_path: Path) -> None:
    assert load(tmp_path, EVALUATE, "train.optim.momentum=0.5", action="evaluate").notes == ()
    defaults = [
        "wandb.enable=false",
        "wandb.tags=[training, tao-toolkit]",
        "dataset.dataset_type=serialized",
    ]
    assert load(tmp_path, TRAIN, *defaults, action="train").notes == ()


def test_evaluate_refuses_what_it_would_ignore(tmp_path: Path) -> None:
    line = only(problems(tmp_path, EVALUATE, "evaluate.trt_engine=/e"))
    assert "action 'evaluate' does not have this option" in line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("opset_version=16", "found 16; allowed: 17..19: layer normalization is an operator since"),
        ("opset_version=20", "found 20; allowed: 17..19"),
        ("format=xdl", "found 'xdl', which TAO's schema lists and its export never writes; "),
        ("input_channel=1", "found 1; allowed: 3, as the detector takes RGB images"),
        ("input_width=650", "found 650; allowed: a multiple of 32"),
    ],
)
def test_export_refuses_what_it_cannot_write(tmp_path: Path, override: str, said: str) -> None:
    """TAO raises an opset without a word, and takes a format that it does not write."""
    line = only(problems(tmp_path, "", *NEEDED["export"], f"export.{override}", action="export"))
    assert f"export.{override.split('=')[0]}: " in line
    assert said in line


def test_export_takes_sizes_of_its_own_that_have_room_for_the_queries(tmp_path: Path) -> None:
    """Whatever the data set's size is: TAO's position code and anchors are that one's."""
    size = ["export.input_height=480", "export.input_width=800"]
    other = "dataset.augmentation.eval_spatial_size=[320, 320]"
    export = load(tmp_path, "", *NEEDED["export"], *size, other, action="export").experiment.export
    assert (export.input_height, export.input_width, export.opset_version) == (480, 800, 17)
    default = load(tmp_path, "", *NEEDED["export"], action="export").experiment.export
    assert (default.input_height, default.input_width, default.batch_size) == (640, 640, -1)
    small = ["export.input_height=64", "export.input_width=64"]
    line = only(problems(tmp_path, "", *NEEDED["export"], *small, action="export"))
    assert "model.num_queries: found 300; allowed: ≤ 84, the cells of the feature maps" in line
    assert "(export.input_height)" in line


@pytest.mark.parametrize(
    "override",
    [
        "wandb.enable=false",
        "model.precise_msda=true",
        "train.optim.momentum=0.9",  # its default, written out
        "evaluate.is_quantized=true",  # another action's
        "dataset.infer_data_sources={image_dir: [/i]}",
        "dataset.test_data_sources={image_dir: /i, json_file: /j}",
        "distill.bindings=[{student_module_name: srcs}]",
        "model.load_teacher_enc_dec=true",
        "quantize.skip_names=[head]",
        "train.optim.warmup_steps=100",
        "model.aux_loss=false",
        "train.freeze=[backbone]",
    ],
)
def test_train_takes_what_it_honours_and_carries_what_is_others(
    tmp_path: Path, override: str
) -> None:
    load(tmp_path, TRAIN, override, action="train")


def test_evaluate_takes_what_it_honours(tmp_path: Path) -> None:
    loaded = load(tmp_path, EVALUATE, "evaluate.num_nodes=2", "model.train_backbone=false")
    assert loaded.topology.num_nodes == 2


def test_backbones(tmp_path: Path) -> None:
    """`fan_small` is in TAO's sample specs, and not among the names that its programs know."""
    for name in ("convnext_tiny", "fan_small", "fan_small_12_p4_hybrid", "resnet_18_vd"):
        load(tmp_path, TRAIN, f"model.backbone={name}", action="train")
    line = only(problems(tmp_path, TRAIN, "model.backbone=resnet_180_vd", action="train"))
    assert line.endswith("did you mean 'resnet_18_vd'?")


# --- what is not trained ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("[encodr]", "[0]: found 'encodr', which the detector does not have; the detector has "
         "backbone, encoder, decoder"),
        ("[backbone, backbone.layer5]", "[1]: found 'backbone.layer5', which the detector does not "
         "have; backbone has conv1, bn1, act1, maxpool, layer1, layer2, layer3, layer4"),
        ("[backbone.layer1.0.conv1.weight.x]", "[0]: found 'backbone.layer1.0.conv1.weight.x', "
         "which the detector does not have; backbone.layer1.0.conv1.weight has nothing inside"),
        ("[encoder.pan_blocks.2]", "encoder.pan_blocks has 0, 1"),
        ('[""]', "the detector has backbone, encoder, decoder"),
        ("[backbone, decoder, encoder]", ": found ['backbone', 'decoder', 'encoder'], which leaves "
         "nothing to train"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_frozen(tmp_path: Path, freeze: str, message: str) -> None:
    line = only(problems(tmp_path, TRAIN, f"train.freeze={freeze}", action="train"))
    assert line.startswith(f"override 'train.freeze={freeze}': train.freeze")
    assert message in line


def test_names_that_can_be_frozen(tmp_path: Path) -> None:
    names = "[backbone.layer1.0, encoder.fpn_blocks.0.bottlenecks, decoder.enc_score_head.bias]"
    load(tmp_path, TRAIN, f"train.freeze={names}", action="train")
    vd = ["model.backbone=resnet_18_vd", "train.freeze=[backbone.res_layers.0.blocks.1]"]
    load(tmp_path, TRAIN, *vd, action="train")
    load(tmp_path, EVALUATE, "train.freeze=[anything]", action="evaluate")
    line = only(problems(tmp_path, TRAIN, "train.freeze=[encoder, decoder]",
                         "model.train_backbone=false", action="train"))  # fmt: skip
    assert "leaves nothing to train" in line


def test_a_model_that_is_wrong_anyway_is_named_alone(tmp_path: Path) -> None:
    for wrong in ("model.feat_channels=[]", "model.return_interm_indices=[]"):
        for line in problems(tmp_path, TRAIN, wrong, "train.freeze=[x]", action="train"):
            assert "freeze" not in line


@pytest.mark.parametrize(
    ("override", "action", "placeholder"),
    [
        ("evaluate.checkpoint=/results/{train_job_id}/model_epoch_000.pth", "evaluate",
         "{train_job_id}"),
        ("evaluate.checkpoint=file:///results/{ train_job_id }/m.pth", "evaluate",
         "{ train_job_id }"),
        ("gen_trt_engine.onnx_file=/results/{{export_job_id}}/x.onnx", "gen_trt_engine",
         "{export_job_id}"),
        ("export.onnx_file=out/{name}.onnx", "export", "{name}"),
        ("results_dir=/results/{job.id}", "train", "{job.id}"),
        ("dataset.infer_data_sources.classmap=/d/{split}.txt", "inference", "{split}"),
    ],
)  # fmt: skip
def test_a_placeholder_in_a_path_is_refused_with_what_does_the_same(
    tmp_path: Path, override: str, action: str, placeholder: str
) -> None:
    field = override.partition("=")[0]
    needed = [text for text in NEEDED[action] if not text.startswith(field)]
    line = only(problems(tmp_path, "", *needed, override, action=action))
    assert line.startswith(f"override '{override}': {field}: found ")
    assert f"nothing fills in {placeholder}; allowed: the path itself" in line
    assert "leave the field empty and name the run in job.parent (--parent RUN)" in line


def test_braces_that_are_no_placeholder_stand_in_a_path(tmp_path: Path) -> None:
    for path in ("/d/{1,2}.pth", "/d/{}", "/d/\\${x}"):
        load(tmp_path, "", NEEDED["evaluate"][0], f"evaluate.checkpoint={path}", action="evaluate")


def test_formats_of_layers_that_a_graph_can_have(tmp_path: Path) -> None:
    def found(entry: str, data_type: str) -> list[str]:
        given = f"gen_trt_engine.tensorrt={{data_type: {data_type}, layers_precision: [{entry}]}}"
        action = "gen_trt_engine"
        return [*problems(tmp_path, "", *NEEDED[action], given, action=action)]

    field = "gen_trt_engine.tensorrt.layers_precision"
    assert "allowed with data_type FP16: fp32, fp16" in only(found("'a:int8'", "FP16"))
    assert "allowed with data_type INT8: fp32, fp16, int8" in only(found("'a:bf16'", "INT8"))
    assert field in only(found("'b:int32'", "FP32"))


def test_int8_of_what_is_exported_needs_images(tmp_path: Path) -> None:
    def found(*overrides: str) -> list[str]:
        chain = ("job.then=[gen_trt_engine]", "gen_trt_engine.tensorrt.data_type=INT8")
        given = (*NEEDED["export"], *chain, *overrides)
        return [*problems(tmp_path, "", *given, action="export")]

    line = only(found())
    assert "gen_trt_engine.tensorrt.calibration.cal_image_dir: missing, and so is dataset" in line
    source = "{image_dir: /d/images, json_file: /d/a.json}"
    for enough in (
        "gen_trt_engine.tensorrt.calibration.cal_image_dir=[/d/images]",
        f"dataset.quant_calibration_data_sources={source}",
        "gen_trt_engine.onnx_file=/quantized.onnx",
        "export.is_quantized=true",
    ):
        load(
            tmp_path,
            "",
            *NEEDED["export"],
            "job.then=[gen_trt_engine]",
            "gen_trt_engine.tensorrt.data_type=INT8",
            enough,
            action="export",
        )
