"""`dataset`: where the images are, and how they are prepared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from rtdetr_slurm.spec.fields import (
    DEPLOYING,
    EVALUATE,
    EVERY,
    EXPORT,
    INFERENCE,
    ON_IMAGES,
    QUANTIZE,
    SCORING,
    TRAINING,
    OptionalText,
    Section,
    Side,
    SpatialSize,
    field,
    users,
)

ClassId = Annotated[int, Field(ge=0)]

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
"""How names of archives of images end, in whatever case, that are read where they are."""
PACKED_SUFFIXES = (*ARCHIVE_SUFFIXES, ".tar.zst", ".tzst")
"""The same of all archives, which a stage can unpack."""
LIST_SUFFIX = ".txt"
"""How the name of a list of images ends."""


def scales_around(height: int, width: int) -> list[Any]:
    """0.75 to 1.25 times a size in eleven steps, in multiples of 32; a square is one number."""
    scales: list[Any] = []
    for twentieths in range(15, 26):
        sides = [max(1, (side * twentieths + 320) // 640) * 32 for side in (height, width)]
        scale = sides[0] if height == width else sides
        if scale not in scales:
            scales.append(scale)
    return scales


class DataSource(Section):
    """Images with their annotations."""

    image_dir: OptionalText = field(
        "",
        path="read",
        holds="images",
        required_by=EVERY,
        description="What the file names in json_file are relative to: a folder; an archive (.tar, "
        ".tar.gz, .tgz, .tar.zst, .zip), with or without its top folder; the address of an "
        "archive, or s3://bucket/prefix of a folder.",
    )
    json_file: OptionalText = field(
        "",
        path="read",
        required_by=EVERY,
        description="Annotations in COCO's JSON format. A file, or its address.",
    )


class InferDataSource(Section):
    """Images without annotations."""

    image_dir: list[str] = field(
        [],
        path="read",
        holds="images",
        required_by=EVERY,
        description="Where the images are: folders, with all that is below them; archives (.tar, "
        ".tar.gz, .tgz, .tar.zst, .zip); text files (.txt) that name an image on each line, "
        "relative to their own folder; addresses of archives or of s3:// folders.",
    )
    classmap: OptionalText = field(
        "",
        path="read",
        description="Text file with one class name per line; the first line is class 0, and every "
        "class has a line. Without it the names stored in the checkpoint are used.",
    )


def _absent_if_empty(source: Any) -> Any:
    """None for TAO's placeholders: a source, or a list of sources, in which all text is empty."""
    if isinstance(source, list):
        return source if any(_absent_if_empty(item) is not None for item in source) else None
    if isinstance(source, InferDataSource):
        return source if source.classmap or any(source.image_dir) else None
    if isinstance(source, DataSource):
        return source if source.image_dir or source.json_file else None
    return source


_Absent = AfterValidator(_absent_if_empty)


class AugmentationConfig(Section):
    """Sizes and augmentations."""

    train_spatial_size: SpatialSize = field(
        [640, 640],
        used_by=TRAINING,
        honoured_by=TRAINING,
        automl="disabled",
        description="[height, width] that training images are resized to.",
    )
    multi_scales: list[Side | SpatialSize] = field(
        scales_around(640, 640),
        used_by=TRAINING,
        honoured_by=TRAINING,
        automl="disabled",
        description="Sizes of which each training batch is resized to one at random: a number for "
        "a square or [height, width]. Left out, they are 0.75 to 1.25 times train_spatial_size. An "
        "empty list keeps train_spatial_size.",
    )
    eval_spatial_size: SpatialSize = field(
        [640, 640],
        honoured_by=(*TRAINING, *EVALUATE, *INFERENCE, *QUANTIZE),
        no_effect_in=(*EXPORT, *DEPLOYING),
        carried=EVERY,
        automl="disabled",
        description="[height, width] that images are resized to outside training.",
    )
    distortion_prob: float = field(
        0.8,
        ge=0.0,
        le=1.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Probability that brightness, contrast, saturation and hue are changed.",
    )
    iou_crop_prob: float = field(
        0.8,
        ge=0.0,
        le=1.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Probability of a random crop that keeps a minimum overlap with the objects.",
    )
    preserve_aspect_ratio: bool = field(
        False,
        honoured_by=ON_IMAGES,
        carried=EVERY,
        description="Outside training, scale images so that they fit into the input and fill up "
        "its right or bottom with black, instead of stretching them. Training stretches them. An "
        "ONNX file or engine says which it was exported for.",
    )


class DatasetConfig(Section):
    """Data."""

    train_data_sources: Annotated[list[DataSource] | None, _Absent] = field(
        None,
        source="train",
        honoured_by=(*TRAINING, *QUANTIZE),
        required_by=EVERY,
        automl="disabled",
        template=[{"image_dir": "???", "json_file": "???"}],
        description="Training images; the sources are joined.",
    )
    val_data_sources: Annotated[DataSource | None, _Absent] = field(
        None,
        source="val",
        honoured_by=(*TRAINING, *EXPORT, *QUANTIZE, *DEPLOYING),
        automl="disabled",
        template={"image_dir": "", "json_file": ""},
        description="Images scored while training, for val_mAP. Optional: without them a run only "
        "reports its losses.",
    )
    test_data_sources: Annotated[DataSource | None, _Absent] = field(
        None,
        source="test",
        honoured_by=(*EVALUATE, *EXPORT, *DEPLOYING),
        required_by=EVERY,
        automl="disabled",
        template={"image_dir": "???", "json_file": "???"},
        description="Images that evaluate scores.",
    )
    infer_data_sources: Annotated[InferDataSource | None, _Absent] = field(
        None,
        source="infer",
        honoured_by=users("inference"),
        required_by=EVERY,
        automl="disabled",
        template={"image_dir": [""], "classmap": ""},
        description="Images to run inference on.",
    )
    quant_calibration_data_sources: Annotated[DataSource | None, _Absent] = field(
        None,
        source="quant_calibration",
        honoured_by=(*QUANTIZE, "gen_trt_engine"),
        automl="disabled",
        template={"image_dir": "", "json_file": ""},
        description="Images that calibrate a static quantization, and that layers are compared on. "
        "Left out, quantize takes the first of train_data_sources; for gen_trt_engine there is "
        "cal_image_dir, too.",
    )
    num_classes: int = field(
        80,
        ge=1,
        math_cond="> 0",
        honoured_by=ON_IMAGES,
        carried=EVERY,
        description="Number of classes the model distinguishes. Category ids of the annotations "
        "are used as they are, so this is the highest category id plus one.",
    )
    eval_class_ids: list[ClassId] | None = field(
        None,
        honoured_by=SCORING,
        no_effect_in=INFERENCE,
        carried=EVERY,
        automl="disabled",
        description="Category ids that count in the metrics; null means all. Inference shows all.",
    )
    batch_size: int = field(
        4,
        ge=1,
        honoured_by=ON_IMAGES,
        automl="default_parameter",
        description="Images per GPU and step.",
    )
    workers: int = field(
        8,
        ge=1,
        honoured_by=ON_IMAGES,
        automl="default_parameter",
        description="Processes per GPU that load images.",
    )
    pin_memory: bool = field(
        True,
        honoured_by=ON_IMAGES,
        description="Load images into page-locked memory, which speeds up the copy to the GPU.",
    )
    dataset_type: Literal["serialized", "default"] = field(
        "serialized",
        idle="the loading processes share one copy of the annotations in any case",
        description="How annotations are kept in memory: serialized shares one copy among the "
        "loading processes.",
    )
    remap_mscoco_category: bool = field(
        False,
        honoured_by=SCORING,
        no_effect_in=INFERENCE,
        carried=EVERY,
        description="Map the 80 category ids of MS COCO, which run from 1 to 90 with gaps, to "
        "0..79, as the published RT-DETR weights count them; eval_class_ids are those then.",
    )
    augmentation: AugmentationConfig = field(
        AugmentationConfig, automl="disabled", description="Image sizes and augmentations."
    )
