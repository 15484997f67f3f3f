"""`inference`: detections on images without annotations."""

from __future__ import annotations

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import INFERENCE, GpuIds, OptionalText, Section, Side, field, users


class InferenceConfig(Section):
    """Inference."""

    checkpoint: OptionalText = field(
        "",
        path="read",
        holds="weights",
        inferred=Infer.PARENT_MODEL,
        takes_if=("is_quantized", True, "quantized"),
        honoured_by=users("inference"),
        inferred_in=INFERENCE,
        required_by=INFERENCE,
        description="Weights to run: a checkpoint of this engine or of TAO, or a published "
        "RT-DETR in the official or the Hugging Face layout (.pth, .safetensors). trt_inference "
        "compares its engine with it, where the spec has annotated images; left empty, with the "
        "checkpoint that was exported.",
    )
    trt_engine: OptionalText = field(
        "",
        path="read",
        holds="engine",
        inferred=Infer.PARENT_MODEL,
        takes="engine",
        honoured_by=("trt_inference",),
        required_by=("trt_inference",),
        description="TensorRT engine to run, or an ONNX file that export has written, which ONNX "
        "Runtime then runs. A file that gives it, and no checkpoint, asks for trt_inference.",
    )
    num_gpus: int = field(
        1,
        ge=1,
        honoured_by=users("inference"),
        popular=True,
        description="GPUs per node. Given alone it sets gpu_ids, and gpu_ids alone sets it.",
    )
    gpu_ids: GpuIds = field(
        [0],
        honoured_by=users("inference"),
        automl="disabled",
        popular=True,
        description="GPUs to use, by number; in a Slurm job, among those of the job.",
    )
    num_nodes: int = field(
        1, ge=1, honoured_by=users("inference"), popular=True, description="Nodes to run on."
    )
    batch_size: int = field(
        -1,
        ge=-1,
        honoured_by=users("inference"),
        description="Images per GPU and step; -1 means dataset.batch_size, or of an engine that "
        "takes no more so many as it takes. TAO accepts this field and ignores it.",
    )
    conf_threshold: float = field(
        0.5,
        ge=0.0,
        le=1.0,
        honoured_by=users("inference"),
        description="Lowest score of a detection that is written and drawn.",
    )
    color_map: dict[str, str] | None = field(
        None,
        honoured_by=users("inference"),
        automl="disabled",
        description="Class name to colour of its boxes: a name of CSS, #rrggbb or #rgb. A class "
        "that is not in it has a colour of its own, as all have with null.",
    )
    outline_width: int = field(
        3,
        ge=1,
        honoured_by=users("inference"),
        description="Line width of the drawn boxes in pixels. TAO accepts this field and ignores "
        "it.",
    )
    input_height: Side | None = field(
        None,
        honoured_by=users("inference"),
        description="Height that images are resized to, together with input_width; null means "
        "dataset.augmentation.eval_spatial_size, and of an engine the only size that it takes. TAO "
        "accepts this field and ignores it.",
    )
    input_width: Side | None = field(
        None,
        honoured_by=users("inference"),
        description="Width that images are resized to; as input_height.",
    )
    is_internal: bool = field(
        False,
        honoured_by=users("inference"),
        description="Sort the output into one folder per sequence, which is the folder that holds "
        "the images.",
    )
    is_quantized: bool = field(
        False,
        used_by=INFERENCE,
        honoured_by=INFERENCE,
        description="The checkpoint is one that `quantize` has left, and says itself how it is "
        "quantized.",
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        honoured_by=users("inference"),
        description="Output folder; empty means results_dir/inference.",
    )
