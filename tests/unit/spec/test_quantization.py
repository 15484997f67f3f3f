"""What the backends of quantize can do, and which layers rules mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spec_files import NEEDED, TRAIN, load, only, problems

from rtdetr_slurm.spec.fields import visit
from rtdetr_slurm.spec.needs import taken_from
from rtdetr_slurm.spec.quantization import LayerFormat, choose, useless
from rtdetr_slurm.spec.quantize import QuantizeConfig
from rtdetr_slurm.yaml_source import dotted

STATIC = ("quantize.backend=modelopt.pytorch", "quantize.mode=static_ptq")
ONNX = (
    "quantize.backend=modelopt.onnx",
    "quantize.mode=static_ptq",
    "quantize.device=cpu",
    "quantize.model_path=/m.onnx",
)


def rules(*rules: str, **options: Any) -> QuantizeConfig:
    """Of `pattern=weights[/activations]`."""
    layers = []
    for rule in rules:
        pattern, _, formats = rule.partition("=")
        weights, _, activations = formats.partition("/")
        layers.append(
            {
                "module_name": pattern,
                "weights": {"dtype": weights},
                "activations": {"dtype": activations} if activations else None,
            }
        )
    return QuantizeConfig.model_validate({"layers": layers, **options})


class TestChoose:
    def test_without_rules_int8_of_what_is_not_sensitive(self) -> None:
        """Of the decoder and the encoder's transformer RT-DETR does not survive 8 bits."""
        weights_only = QuantizeConfig()
        assert choose(weights_only, "backbone.conv1", ["Conv2d"]) == LayerFormat("int8")
        assert "sensitive" in str(choose(weights_only, "decoder.enc_score_head", ["Linear"]))
        assert "sensitive" in str(choose(weights_only, "encoder.encoder.0.linear1", ["Linear"]))
        static = QuantizeConfig(mode="static_ptq", backend="modelopt.pytorch")
        expected = LayerFormat("int8", "int8")
        assert choose(static, "encoder.fpn_blocks.0.conv1.conv", ["Conv2d"]) == expected

    def test_only_who_begins_with_it_means_a_sensitive_layer(self) -> None:
        head = "decoder.dec_score_head.0"
        for pattern in ("*", "Linear", "*.dec_score_head.*", "d*"):
            assert isinstance(choose(rules(f"{pattern}=int8"), head, ["Linear"]), str)
        for pattern in ("decoder.*", head, "decoder.dec_score_head.?"):
            assert choose(rules(f"{pattern}=int8"), head, ["Linear"]) == LayerFormat("int8")
        in_transformer = "encoder.encoder.0.layers.0.linear1"
        assert isinstance(choose(rules("encoder.*=int8"), in_transformer, ["Linear"]), str)

    def test_a_later_rule_overrides_and_skip_names_come_last(self) -> None:
        config = rules("*=int8", "backbone.*=fp8_e4m3fn", "Linear=native", skip_names=["*.conv9"])
        assert choose(config, "encoder.a", ["Conv2d"]) == LayerFormat("int8")
        assert choose(config, "backbone.a", ["Conv2d"]) == LayerFormat("fp8_e4m3fn")
        assert choose(config, "backbone.a", ["Linear"]) == "native"
        assert choose(config, "backbone.conv9", ["Conv2d"]) == "in skip_names"
        assert choose(rules("backbone.*=int8"), "encoder.a", ["Conv2d"]) == "no rule means it"
        assert choose(rules("Backbone.*=int8"), "backbone.a", ["Conv2d"]) == "no rule means it"

    def test_patterns_that_mean_nothing(self) -> None:
        layers = [("backbone.conv1", ["Conv2d"]), ("decoder.head", ["Linear"])]
        config = rules("*=int8", "Linear=int8", "decoder.*=int8", skip_names=["backbone.x"])
        assert list(useless(config, layers)) == [
            ("quantize.layers[1].module_name", "Linear"),
            ("quantize.skip_names[0]", "backbone.x"),
        ]


def refused(tmp_path: Path, *overrides: str) -> str:
    needed = [] if any("model_path" in one for one in overrides) else NEEDED["quantize"]
    line: str = only(problems(tmp_path, TRAIN, *needed, *overrides, action="quantize"))
    return line


def rule(weights: str, activations: str = "") -> str:
    return (
        f"quantize.layers=[{{module_name: '*', weights: {{dtype: {weights}}}"
        + (f", activations: {{dtype: {activations}}}" if activations else "")
        + "}]"
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([rule("int8", "int8")], "layers[0].activations.dtype: found 'int8'; allowed with backend "
         "'torchao': native; backend modelopt.pytorch with mode static_ptq has them"),
        ([*STATIC, rule("float8_e5m2")], "layers[0].weights.dtype: found 'fp8_e5m2'; allowed with "
         "backend 'modelopt.pytorch': int8, fp8_e4m3fn, native"),
        ([*STATIC, rule("int8", "fp8_e4m3fn")], "layers[0].activations.dtype: found fp8_e4m3fn; "
         "allowed: the weights' int8"),
        ([*STATIC, rule("native", "int8")], "allowed: the weights' native"),
        ([*ONNX, rule("int8")], "layers[0].activations: missing; backend 'modelopt.onnx' quantizes "
         "them with the weights"),
        ([*ONNX, "quantize.layers=[{module_name: a, weights: {dtype: int8}, activations: {dtype: "
          "int8}}, {module_name: b, weights: {dtype: fp8_e4m3fn}, activations: {dtype: "
          "fp8_e4m3fn}}]"], "layers: found fp8_e4m3fn, int8; allowed with backend 'modelopt.onnx': "
         "one number format"),
        (["quantize.layers=[{module_name: '*', weights: {dtype: int8, quant_axis: 1}}]"],
         "layers[0].weights.quant_axis: found 1; allowed: null or 0"),
        (["quantize.layers=[{module_name: '*', weights: {observer_or_fake_quant: M, dtype: int8}"
          "}]"],
         "layers[0].weights.observer_or_fake_quant: found 'M', and no backend has observers"),
        (["quantize.layers=[{module_name: 'backbone.x*', weights: {dtype: int8}}]"],
         "layers[0].module_name: found 'backbone.x*', which means no layer of the detector"),
        (["quantize.skip_names=[head]"], "skip_names[0]: found 'head', which means no layer"),
        (["quantize.algorithm=entropy"], "algorithm: found 'entropy', which is about activations, "
         "which stay as they are; allowed with backend 'torchao': 'minmax', 'max'"),
        ([*STATIC, "quantize.algorithm=awq_lite"], "found 'awq_lite', which is for weights of 4"),
        (["quantize.device=trt"], "device: found 'trt'; TensorRT is not in the image"),
        ([*ONNX[:2], ONNX[3]], "device: found 'cuda'; allowed with backend 'modelopt.onnx': cpu"),
        ([*ONNX[:3], "quantize.model_path=/m.pth"], "model_path: found '/m.pth'; allowed with "
         "backend 'modelopt.onnx': an ONNX file (.onnx)"),
        (["quantize.model_path=/m.onnx"], "model_path: found '/m.onnx'; allowed with backend "
         "'torchao': a checkpoint (.pth)"),
        (["quantize.backend_kwargs={a: 1}"], "backend_kwargs: found a section with a; action"),
    ],
)  # fmt: skip
def test_what_a_backend_cannot_do_is_refused(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    assert said in refused(tmp_path, *overrides)


def test_what_they_can_do_is_taken(tmp_path: Path) -> None:
    for weights in ("int8", "fp8_e4m3fn", "float8_e4m3fn", "float8_e5m2"):
        load(tmp_path, "", *NEEDED["quantize"], rule(weights, "native"), action="quantize")
    for backend in (STATIC, ONNX):
        for dtype in ("int8", "float8_e4m3fn"):
            overrides = (*NEEDED["quantize"], *backend)[-4:]
            load(tmp_path, TRAIN, *overrides, rule(dtype, dtype), action="quantize")
    loaded = load(tmp_path, "", *NEEDED["quantize"], "quantize.device=cpu", action="quantize")
    assert loaded.topology.on_cpu
    one = load(tmp_path, "", *NEEDED["quantize"], "quantize.device=cuda:2", action="quantize")
    assert one.topology.gpu_ids == (2,)


def test_a_quantized_checkpoint_comes_from_the_quantization(tmp_path: Path) -> None:
    """In a chain as from a parent run; another checkpoint comes from the training."""
    chain = ["job.then=[quantize, evaluate, export]", *NEEDED["evaluate"][:1]]
    flag = "evaluate.is_quantized=true"
    loaded = load(tmp_path, TRAIN, *chain, flag, action="train")
    found = {
        dotted(ref.path): taken_from(ref, loaded.actions, 2 if "evaluate" in ref.path else 3, None)
        for ref, _ in visit(loaded.experiment)
        if ref.path in (("evaluate", "checkpoint"), ("export", "checkpoint"))
    }
    assert found == {"evaluate.checkpoint": "quantize", "export.checkpoint": "train"}
    needed = NEEDED["evaluate"][0]
    load(tmp_path, "", needed, flag, "job.parent=quantize-1", action="evaluate")
    line = only(problems(tmp_path, "", needed, flag, action="evaluate"))
    assert "evaluate.checkpoint: missing" in line


def test_an_onnx_file_is_quantized_of_an_export_and_not_taken_for_a_checkpoint(
    tmp_path: Path,
) -> None:
    chain = ["job.then=[export, quantize]", *ONNX[:3]]
    loaded = load(tmp_path, TRAIN, *chain, action="train")
    (ref,) = (r for r, _ in visit(loaded.experiment) if r.path == ("quantize", "model_path"))
    assert taken_from(ref, loaded.actions, 2, None) == "export"
    chain[0] = "job.then=[export, quantize, evaluate]"
    flags = ["evaluate.is_quantized=true", *NEEDED["evaluate"][:1]]
    line = only(problems(tmp_path, TRAIN, *chain, *flags, action="train"))
    assert "evaluate.is_quantized: found true; quantize.backend 'modelopt.onnx' leaves" in line
