"""`evaluate`: metrics of a checkpoint, or of a TensorRT engine."""

from __future__ import annotations

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import EVALUATE, GpuIds, OptionalText, Section, Side, field, users


class EvaluateConfig(Section):
    """Evaluation."""

    checkpoint: OptionalText = field(
        "",
        path="read",
        holds="weights",
        inferred=Infer.PARENT_MODEL,
        takes_if=("is_quantized", True, "quantized"),
        honoured_by=users("evaluate"),
        inferred_in=EVALUATE,
        required_by=EVALUATE,
        description="Weights to score: a checkpoint of this engine or of TAO, or a published "
        "RT-DETR in the official or the Hugging Face layout (.pth, .safetensors). trt_evaluate "
        "compares its engine with it; left empty, with the checkpoint that was exported.",
    )
    trt_engine: OptionalText = field(
        "",
        path="read",
        holds="engine",
        inferred=Infer.PARENT_MODEL,
        takes="engine",
        honoured_by=("trt_evaluate",),
        required_by=("trt_evaluate",),
        description="TensorRT engine to score, or an ONNX file that export has written, which "
        "ONNX Runtime then runs. A file that gives it, and no checkpoint, asks for trt_evaluate.",
    )
    num_gpus: int = field(
        1,
        ge=1,
        honoured_by=users("evaluate"),
        popular=True,
        description="GPUs per node. Given alone it sets gpu_ids, and gpu_ids alone sets it.",
    )
    gpu_ids: GpuIds = field(
        [0],
        honoured_by=users("evaluate"),
        automl="disabled",
        popular=True,
        description="GPUs to use, by number; in a Slurm job, among those of the job.",
    )
    num_nodes: int = field(
        1, ge=1, honoured_by=users("evaluate"), popular=True, description="Nodes to evaluate on."
    )
    batch_size: int = field(
        -1,
        ge=-1,
        honoured_by=users("evaluate"),
        description="Images per GPU and step; -1 means dataset.batch_size, or of an engine that "
        "takes no more so many as it takes. TAO accepts this field and ignores it.",
    )
    conf_threshold: float = field(
        0.0,
        ge=0.0,
        le=1.0,
        honoured_by=users("evaluate"),
        description="Detections with a lower score are dropped before scoring. Above 0 it lowers "
        "the metrics.",
    )
    input_height: Side | None = field(
        None,
        honoured_by=users("evaluate"),
        description="Height that images are resized to, together with input_width; null means "
        "dataset.augmentation.eval_spatial_size, and of an engine the only size that it takes. TAO "
        "accepts this field and ignores it.",
    )
    input_width: Side | None = field(
        None,
        honoured_by=users("evaluate"),
        description="Width that images are resized to; as input_height.",
    )
    is_quantized: bool = field(
        False,
        used_by=EVALUATE,
        honoured_by=EVALUATE,
        description="The checkpoint is one that `quantize` has left, and says itself how it is "
        "quantized.",
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        honoured_by=users("evaluate"),
        description="Output folder; empty means results_dir/evaluate.",
    )
