"""`evaluate`: metrics of a checkpoint, or of a TensorRT engine."""

from __future__ import annotations

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import EVALUATE, GpuIds, OptionalText, Section, Side, field


class EvaluateConfig(Section):
    """Evaluation."""

    checkpoint: OptionalText = field(
        "",
        path="read",
        holds="weights",
        inferred=Infer.PARENT_MODEL,
        takes_if=("is_quantized", True, "quantized"),
        used_by=("evaluate",),
        honoured_by=EVALUATE,
        required_by=("evaluate",),
        description="Weights to score: a checkpoint of this engine or of TAO, or a published "
        "RT-DETR in the official or the Hugging Face layout (.pth, .safetensors).",
    )
    trt_engine: OptionalText = field(
        "",
        path="read",
        inferred=Infer.PARENT_MODEL,
        takes="engine",
        required_by=("trt_evaluate",),
        description="TensorRT engine to score; action trt_evaluate reads it.",
    )
    num_gpus: int = field(
        1,
        ge=1,
        honoured_by=EVALUATE,
        popular=True,
        description="GPUs per node. Given alone it sets gpu_ids, and gpu_ids alone sets it.",
    )
    gpu_ids: GpuIds = field(
        [0],
        honoured_by=EVALUATE,
        automl="disabled",
        popular=True,
        description="GPUs to use, by number; in a Slurm job, among those of the job.",
    )
    num_nodes: int = field(
        1, ge=1, honoured_by=EVALUATE, popular=True, description="Nodes to evaluate on."
    )
    batch_size: int = field(
        -1,
        ge=-1,
        honoured_by=EVALUATE,
        description="Images per GPU and step; -1 means dataset.batch_size. TAO accepts this field "
        "and ignores it.",
    )
    conf_threshold: float = field(
        0.0,
        ge=0.0,
        le=1.0,
        honoured_by=EVALUATE,
        description="Detections with a lower score are dropped before scoring. Above 0 it lowers "
        "the metrics.",
    )
    input_height: Side | None = field(
        None,
        honoured_by=EVALUATE,
        description="Height that images are resized to, together with input_width; null means "
        "dataset.augmentation.eval_spatial_size. TAO accepts this field and ignores it.",
    )
    input_width: Side | None = field(
        None, honoured_by=EVALUATE, description="Width that images are resized to; as input_height."
    )
    is_quantized: bool = field(
        False,
        honoured_by=EVALUATE,
        description="The checkpoint is one that `quantize` has left, and says itself how it is "
        "quantized.",
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        honoured_by=EVALUATE,
        description="Output folder; empty means results_dir/evaluate.",
    )
