"""The whole spec: TAO's sections in one model, and the actions they belong to."""

from __future__ import annotations

from typing import Literal

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.contract import Env, Infer
from rtdetr_slurm.spec.automl import AutoMLConfig
from rtdetr_slurm.spec.dataset import DatasetConfig
from rtdetr_slurm.spec.distill import DistillConfig
from rtdetr_slurm.spec.engine import EngineConfig
from rtdetr_slurm.spec.evaluate import EvaluateConfig
from rtdetr_slurm.spec.export import ExportConfig
from rtdetr_slurm.spec.fields import (
    EVERY,
    MODEL,
    ON_IMAGES,
    TRAINING,
    OptionalText,
    Section,
    declared,
    field,
    users,
)
from rtdetr_slurm.spec.gen_trt_engine import GenTrtEngineConfig
from rtdetr_slurm.spec.inference import InferenceConfig
from rtdetr_slurm.spec.job import JobConfig
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.quantize import QuantizeConfig
from rtdetr_slurm.spec.train import TrainConfig
from rtdetr_slurm.spec.wandb import WandbConfig

PLACEHOLDERS = ("tlt_encode", "nvidia_tlt")
"""What TAO's own files have as encryption_key: it stands for none."""
FROM_ENVIRONMENT = f"env:{Env.ENCRYPTION_KEY}"
"""What a spec has as encryption_key once the key is out of it."""


class ExperimentConfig(Section):
    """What an engine is given: TAO's sections, and `engine`, which its images are not given.

    Those that a spec leaves out have their defaults."""

    results_dir: OptionalText = field(
        "",
        path="write",
        honoured_by=ON_IMAGES,
        description="Folder for results; each action writes to a folder of its own name in it. "
        "Empty means the run's own folder.",
    )
    model_name: Literal["", "rtdetr"] = field(
        "", no_effect_in=EVERY, description="Name of the network; rtdetr or empty."
    )
    encryption_key: OptionalText = field(
        "",
        inferred=Infer.KEY,
        honoured_by=MODEL,
        also_default=PLACEHOLDERS,
        description="Checkpoints and ONNX files are encrypted with it: the key itself, which is "
        "then in no record and no copy of the spec, file:///… with the key in it (mode 0600), or "
        f"{FROM_ENVIRONMENT}, which is also taken where nothing is said. TAO's placeholders "
        "tlt_encode and nvidia_tlt stand for none.",
    )
    wandb: WandbConfig = field(
        WandbConfig,
        automl="disabled",
        honoured_by=TRAINING,
        no_effect_in=tuple(action for action in EVERY if action not in TRAINING),
        switch="enable",
        description="Weights & Biases, which training logs to where there is a key for it.",
    )
    model: ModelConfig = field(ModelConfig, automl="disabled", description="The detector.")
    dataset: DatasetConfig = field(
        DatasetConfig, automl="disabled", description="Data and how it is prepared."
    )
    train: TrainConfig = field(
        TrainConfig, used_by=users("train"), automl="disabled", description="The training loop."
    )
    evaluate: EvaluateConfig = field(
        EvaluateConfig,
        used_by=users("evaluate"),
        automl="disabled",
        description="Metrics of a trained model.",
    )
    inference: InferenceConfig = field(
        InferenceConfig,
        used_by=users("inference"),
        automl="disabled",
        description="Detections on images without annotations.",
    )
    export: ExportConfig = field(
        ExportConfig, used_by=users("export"), automl="disabled", description="ONNX export."
    )
    distill: DistillConfig = field(
        DistillConfig,
        used_by=users("distill"),
        automl="disabled",
        description="Training with the help of a teacher; `model` is the student.",
    )
    quantize: QuantizeConfig = field(
        QuantizeConfig,
        used_by=users("quantize"),
        automl="disabled",
        description="Post-training quantization.",
    )
    gen_trt_engine: GenTrtEngineConfig = field(
        GenTrtEngineConfig,
        used_by=users("gen_trt_engine"),
        honoured_by=users("gen_trt_engine"),
        automl="disabled",
        description="A TensorRT engine from an ONNX file.",
    )
    engine: EngineConfig = field(
        EngineConfig,
        used_by=TRAINING,
        description="Options of this engine that NVIDIA TAO does not have; all are off by default.",
    )

    @property
    def images_per_step(self) -> int:
        """Images of one optimizer step on each rank: the effective batch but for their number."""
        return self.dataset.batch_size * self.engine.accumulate


class SpecFile(ExperimentConfig):
    """What a file may hold: TAO's sections and our own two."""

    job: JobConfig = field(JobConfig, description="How the work is queued.")
    automl: AutoMLConfig = field(AutoMLConfig, description="Hyper-parameter search.")


OURS = tuple(name for name in SpecFile.model_fields if name not in ExperimentConfig.model_fields)
"""Sections that are not TAO's."""

ACTION_SECTIONS = tuple(dict.fromkeys(action.section for action in ACTIONS.values()))
"""Sections that say by themselves what is to be done."""


def used_sections(action: str) -> tuple[str, ...]:
    """Names of the top-level keys of TAO's that `action` reads, in the order of the model."""
    return tuple(str(ref.path[0]) for ref in declared(ExperimentConfig) if action in ref.used_by)
