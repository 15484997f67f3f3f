"""What each backend of `quantize` can do, and which layers a spec means. Pure, as rules.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rtdetr_slurm.contract import ONNX_SUFFIX
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.experiment import FROM_ENVIRONMENT, ExperimentConfig
from rtdetr_slurm.spec.fields import EVALUATE, EXPORT, INFERENCE, QUANTIZE
from rtdetr_slurm.spec.modules import detector_modules, names
from rtdetr_slurm.spec.quantize import LayerRule, QuantizeConfig, TensorRule
from rtdetr_slurm.yaml_source import KeyPath, show

Problems = Iterator[Problem]

STATIC = "static_ptq"
INT8, E4M3, E5M2 = "int8", "fp8_e4m3fn", "fp8_e5m2"
SENSITIVE = ("decoder.", "encoder.encoder.")
"""How the names of layers begin that a rule must name: the decoder, and the transformer of the
encoder. With 8 bits for their activations RT-DETR loses most of what it has learned."""
FP8_OPSET = 19
"""The first ONNX operator set with FP8."""
TAKING_QUANTIZED = (*EVALUATE, *INFERENCE, *EXPORT)
"""Actions with `is_quantized`."""
LAYER_KINDS = ("Conv2d", "Linear")
"""Classes of the layers that can be quantized."""


@dataclass(frozen=True)
class Backend:
    """What a library can do here.

    Attributes:
        mode: its only one.
        weights, activations: number formats.
        takes_onnx: it works on an ONNX file, else on a checkpoint.
    """

    mode: str
    weights: tuple[str, ...]
    activations: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ("minmax", "max", "entropy")
    takes_onnx: bool = False


BACKENDS: Mapping[str, Backend] = {
    "torchao": Backend("weight_only_ptq", (INT8, E4M3, E5M2), algorithms=("minmax", "max")),
    # Of FP8 it has fixed scales for E4M3 alone.
    "modelopt.pytorch": Backend(STATIC, (INT8, E4M3), (INT8, E4M3)),
    "modelopt.onnx": Backend(STATIC, (INT8, E4M3), (INT8, E4M3), takes_onnx=True),
}


@dataclass(frozen=True)
class LayerFormat:
    """Number formats of a quantized layer; its activations, those it is given, may stay as they
    are (None)."""

    weights: str
    activations: str | None = None


def layer_rules(config: QuantizeConfig) -> Sequence[LayerRule]:
    """The rules of a section, or what stands for none."""
    if config.layers:
        return config.layers
    int8 = TensorRule(dtype="int8")
    static = int8 if config.mode == STATIC else None
    return [LayerRule(module_name="*", weights=int8, activations=static)]


def key_problem(backend: str) -> str:
    """What is said of encryption and a backend that would leave the model unencrypted."""
    return (
        f"found '{backend}', which works on files of its own, unencrypted; allowed with "
        "encryption_key: the others, whose result `export` encrypts"
    )


def opset_has(formats: Iterable[str], opset: int) -> Problems:
    """Whether an export can write layers of these number formats."""
    missing = sorted({*formats} - {INT8})
    if missing and opset < FP8_OPSET:
        yield Problem(
            ("export", "opset_version"),
            f"found {opset}; the checkpoint has layers in {', '.join(missing)}, which ONNX has "
            f"from {FP8_OPSET} on; allowed: {FP8_OPSET}",
        )


def choose(config: QuantizeConfig, name: str, kinds: Sequence[str]) -> LayerFormat | str:
    """How a layer is quantized, or why it is not, in words.

    Args:
        name: dotted.
        kinds: names of its class.
    """
    if any(_matches(pattern, name, kinds) for pattern in config.skip_names):
        return "in skip_names"
    rules = layer_rules(config)
    rule = next((one for one in reversed(rules) if _means(one, name, kinds)), None)
    if rule is None:
        matched = any(_matches(one.module_name, name, kinds) for one in rules)
        start = _sensitive(name)
        return f"sensitive: no rule begins with {start}" if matched else "no rule means it"
    weights = _format(rule.weights)
    return "native" if weights is None else LayerFormat(weights, _format(rule.activations))


def useless(
    config: QuantizeConfig, layers: Sequence[tuple[str, Sequence[str]]]
) -> Iterator[tuple[str, str]]:
    """Patterns that mean none of these layers: their fields, and they themselves.

    Args:
        layers: names and the names of their classes.
    """
    for index, rule in enumerate(config.layers):
        if not any(_means(rule, *layer) for layer in layers):
            yield f"quantize.layers[{index}].module_name", rule.module_name
    for index, pattern in enumerate(config.skip_names):
        if not any(_matches(pattern, *layer) for layer in layers):
            yield f"quantize.skip_names[{index}]", pattern


def _means(rule: LayerRule, name: str, kinds: Sequence[str]) -> bool:
    named = rule.module_name.startswith(_sensitive(name))
    return named and _matches(rule.module_name, name, kinds)


def _sensitive(name: str) -> str:
    """How a rule must begin that means a layer; empty for most."""
    return next((start for start in SENSITIVE if name.startswith(start)), "")


def _matches(pattern: str, name: str, kinds: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for text in (name, *kinds))


def _format(rule: TensorRule | None) -> str | None:
    return None if rule is None or rule.dtype in ("", "native") else rule.dtype


# --- what is wrong with a section ------------------------------------------------------------
def backend_takes_a_key(experiment: ExperimentConfig, action: str) -> Problems:
    """A rule of its own: that there is a key may be known only after all others."""
    name = experiment.quantize.backend
    encrypts = experiment.encryption_key == FROM_ENVIRONMENT
    if action in QUANTIZE and encrypts and BACKENDS[name].takes_onnx:
        yield Problem(("quantize", "backend"), key_problem(name))


def backend_can_do_it(experiment: ExperimentConfig, action: str) -> Problems:
    """What the library cannot do is refused, where TAO passes over it."""
    if action not in QUANTIZE:
        return
    config = experiment.quantize
    backend = BACKENDS[config.backend]
    yield from _algorithm(config, backend)
    yield from _device(config, backend)
    yield from _model_path(config, backend)
    yield from backend_takes_a_key(experiment, action)
    for index, rule in enumerate(config.layers):
        yield from _rule(config, backend, rule, ("quantize", "layers", index))
    formats = {_format(rule.weights) for rule in config.layers} - {None}
    if backend.takes_onnx and len(formats) > 1:
        yield Problem(
            ("quantize", "layers"),
            f"found {', '.join(sorted(filter(None, formats)))}; allowed with backend "
            f"'{config.backend}': one number format for all layers",
        )
    if not backend.takes_onnx:  # how a file's nodes are called is in the file
        yield from _patterns_mean_something(experiment)


def checkpoint_is_left(experiment: ExperimentConfig, action: str) -> Problems:
    """What a quantization of this spec leaves can be taken where it is left to be taken."""
    config = experiment.quantize
    if action in TAKING_QUANTIZED and "quantize" in experiment.model_fields_set:
        section = getattr(experiment, action)
        onnx = BACKENDS[config.backend].takes_onnx
        if section.is_quantized and not section.checkpoint and onnx:
            yield Problem(
                (action, "is_quantized"),
                f"found true; quantize.backend '{config.backend}' leaves an ONNX file, which "
                f"action '{action}' does not take; allowed: false, or another backend",
                also=(("quantize", "backend"),),
            )


def _algorithm(config: QuantizeConfig, backend: Backend) -> Problems:
    if config.algorithm not in backend.algorithms:
        allowed = ", ".join(map(repr, backend.algorithms))
        why = (
            "is about activations, which stay as they are"
            if config.algorithm == "entropy"
            else "is for weights of 4 bits, which no number format here has"
        )
        yield Problem(
            ("quantize", "algorithm"),
            f"found '{config.algorithm}', which {why}; allowed with backend '{config.backend}': "
            f"{allowed}",
            also=(("quantize", "backend"),),
        )


def _device(config: QuantizeConfig, backend: Backend) -> Problems:
    if config.device == "trt":
        yield Problem(
            ("quantize", "device"),
            "found 'trt'; TensorRT is not in the image for this; allowed: cpu, or with a backend "
            "on PyTorch cuda or one GPU such as cuda:1",
        )
    elif backend.takes_onnx and not config.on_cpu:
        yield Problem(
            ("quantize", "device"),
            f"found '{config.device}'; allowed with backend '{config.backend}': cpu, which its "
            "ONNX Runtime computes on; a GPU of the job would wait for it",
            also=(("quantize", "backend"),),
        )


def _model_path(config: QuantizeConfig, backend: Backend) -> Problems:
    path = config.model_path
    if path and backend.takes_onnx != path.endswith(ONNX_SUFFIX):
        wanted = f"an ONNX file ({ONNX_SUFFIX})" if backend.takes_onnx else "a checkpoint (.pth)"
        yield Problem(
            ("quantize", "model_path"),
            f"found {show(path)}; allowed with backend '{config.backend}': {wanted}",
            also=(("quantize", "backend"),),
        )


def _rule(config: QuantizeConfig, backend: Backend, rule: LayerRule, at: KeyPath) -> Problems:
    where, static = f"with backend '{config.backend}'", ("quantize", "mode")
    for name, tensor, axes in (
        ("weights", rule.weights, (None, 0)),
        ("activations", rule.activations, (None,)),
    ):
        if tensor is None:
            continue
        allowed = getattr(backend, name)
        if tensor.dtype and _format(tensor) not in (None, *allowed):
            instead = ", ".join((*allowed, "native"))
            hint = "" if allowed else "; backend modelopt.pytorch with mode static_ptq has them"
            yield Problem(
                (*at, name, "dtype"),
                f"found {show(tensor.dtype)}; allowed {where}: {instead}{hint}",
                also=(("quantize", "backend"), static),
            )
        if tensor.quant_axis not in axes:
            yield Problem(
                (*at, name, "quant_axis"),
                f"found {tensor.quant_axis}; allowed: {' or '.join(map(show, axes))}",
            )
        for option in ("observer_or_fake_quant", "observer_or_fake_quant_kwargs"):
            if getattr(tensor, option):
                yield Problem(
                    (*at, name, option),
                    f"found {show(getattr(tensor, option))}, and no backend has observers, which "
                    "TAO passes over; allowed: nothing",
                )
    weights, activations = _format(rule.weights), _format(rule.activations)
    if activations in backend.activations and activations != weights:
        yield Problem(
            (*at, "activations", "dtype"),
            f"found {activations}; allowed: the weights' {weights or 'native'}, for a layer "
            "computes with both",
            also=((*at, "weights", "dtype"),),
        )
    if backend.takes_onnx and weights and activations is None:
        yield Problem(
            (*at, "activations"),
            f"missing; backend '{config.backend}' quantizes them with the weights: give the same "
            "dtype",
            also=(("quantize", "backend"),),
        )


def _patterns_mean_something(experiment: ExperimentConfig) -> Problems:
    model, config = experiment.model, experiment.quantize
    if not (model.return_interm_indices and model.feat_channels):
        return
    known = [name for name, is_parameter in names(detector_modules(experiment)) if not is_parameter]
    given: dict[KeyPath, str] = {
        ("quantize", "layers", index, "module_name"): rule.module_name
        for index, rule in enumerate(config.layers)
    }
    given |= {("quantize", "skip_names", i): one for i, one in enumerate(config.skip_names)}
    for path, pattern in given.items():
        if pattern and not any(_matches(pattern, name, LAYER_KINDS) for name in known):
            yield Problem(
                path,
                f"found {show(pattern)}, which means no layer of the detector; allowed: dotted "
                "names such as encoder.fpn_blocks.0.conv1.conv, parts of them with * and ?, or "
                f"{' or '.join(LAYER_KINDS)}",
            )
