"""`train`: the training loop; the distiller's too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.checkpointer import CheckpointerConfig
from rtdetr_slurm.spec.fields import TRAIN, TRAINING, GpuIds, OptionalText, Section, field


class OptimConfig(Section):
    """Optimizer and learning rate."""

    optimizer: Literal["AdamW", "SGD"] = field(
        "AdamW",
        honoured_by=TRAINING,
        description="Optimizer; TAO's RT-DETR has AdamW alone.",
    )
    lr: float = field(
        1e-4,
        ge=0.0,
        le=1.0,
        math_cond="> 0.0",
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Learning rate of everything but the backbone.",
    )
    lr_backbone: float = field(
        1e-5,
        ge=0.0,
        le=1.0,
        math_cond="> 0.0",
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Learning rate of the backbone. It takes effect here; in TAO the backbone "
        "trains at lr.",
    )
    weight_decay: float = field(
        1e-4,
        ge=0.0,
        le=1.0,
        math_cond="> 0.0",
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Weight decay; biases and norms have none.",
    )
    momentum: float = field(
        0.9,
        ge=0.0,
        le=1.0,
        math_cond="> 0.0",
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Momentum of SGD; AdamW has none.",
    )
    warmup_steps: int = field(
        0,
        ge=0,
        honoured_by=TRAINING,
        description="Steps over which the learning rates rise linearly from 0 at the start. TAO "
        "accepts this field and ignores it.",
    )
    lr_scheduler: Literal["MultiStep", "StepLR"] = field(
        "MultiStep",
        honoured_by=TRAINING,
        description="When the learning rates drop: at the epochs of lr_steps (MultiStep) or every "
        "lr_step_size epochs (StepLR).",
    )
    lr_steps: list[Annotated[int, Field(ge=1)]] = field(
        [1000],
        honoured_by=TRAINING,
        automl="disabled",
        description="Epochs after which MultiStep lowers the learning rates.",
    )
    lr_step_size: int = field(
        1000,
        ge=1,
        le=10000,
        math_cond="> 0",
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Epochs between two drops of StepLR.",
    )
    lr_decay: float = field(
        0.1,
        ge=0.0,
        le=1.0,
        math_cond="> 0.0",
        honoured_by=TRAINING,
        automl="default_parameter",
        description="What the learning rates are multiplied by at each drop.",
    )
    monitor_name: Literal["val_loss", "train_loss"] = field(
        "val_loss",
        idle="neither of the two schedulers watches a value",
        description="Value a scheduler would watch; neither of the two schedulers watches one, in "
        "TAO as here.",
    )


class EmaConfig(Section):
    """Averaged weights."""

    decay: float = field(
        0.999,
        ge=0.0,
        le=1.0,
        math_cond="> 0.0",
        honoured_by=TRAINING,
        automl="default_parameter",
        description="Share of the average that each update keeps.",
    )
    every_n_steps: int = field(
        1, ge=1, honoured_by=TRAINING, description="Steps between two updates of the average."
    )
    validate_original_weights: bool = field(
        False,
        honoured_by=TRAINING,
        description="Validate the trained weights and not the average.",
    )
    cpu_offload: bool = field(
        False, honoured_by=TRAINING, description="Keep the average in host memory."
    )


class CudnnConfig(Section):
    """cuDNN."""

    deterministic: bool = field(
        True,
        honoured_by=TRAINING,
        description="Use algorithms that repeat exactly where there are any; slower.",
    )
    benchmark: bool = field(
        False,
        honoured_by=TRAINING,
        description="Try out the convolution algorithms for each input size; faster with few "
        "sizes, but then a run does not repeat exactly.",
    )


class TrainConfig(Section):
    """Training."""

    num_epochs: int = field(
        10,
        ge=1,
        honoured_by=TRAINING,
        popular=True,
        description="Epochs in total; a resumed run counts those it has behind it.",
    )
    num_gpus: int = field(
        1,
        ge=1,
        honoured_by=TRAINING,
        popular=True,
        description="GPUs per node. Given alone it sets gpu_ids, and gpu_ids alone sets it.",
    )
    gpu_ids: GpuIds = field(
        [0],
        honoured_by=TRAINING,
        automl="disabled",
        popular=True,
        description="GPUs to use on each node, by number; in a Slurm job, among those of the job.",
    )
    num_nodes: int = field(
        1, ge=1, honoured_by=TRAINING, popular=True, description="Nodes to train on."
    )
    validation_interval: int = field(
        1,
        ge=1,
        honoured_by=TRAINING,
        popular=True,
        description="Epochs between two validations; at most num_epochs.",
    )
    checkpoint_interval: int = field(
        1,
        ge=1,
        honoured_by=TRAINING,
        popular=True,
        description="Epochs, or optimizer steps, between two checkpoints; of epochs at most "
        "num_epochs. The last epoch is always saved.",
    )
    checkpoint_interval_unit: Literal["epoch", "step"] = field(
        "epoch",
        honoured_by=TRAINING,
        description="Unit of checkpoint_interval; a step is one of the optimizer.",
    )
    pretrained_model_path: OptionalText = field(
        "",
        path="read",
        holds="weights",
        inferred=Infer.PTM_IF_NO_RESUME_MODEL,
        inferred_in=TRAIN,
        carried=TRAIN,
        honoured_by=TRAINING,
        description="Weights of a whole detector to start from: a checkpoint of this engine or of "
        "TAO, or a published RT-DETR in the official or the Hugging Face layout.",
    )
    resume_training_checkpoint_path: OptionalText = field(
        "",
        path="read",
        holds="checkpoint",
        inferred=Infer.RESUME_MODEL,
        inferred_in=TRAIN,
        honoured_by=TRAINING,
        description="Checkpoint to continue from, with optimizer, schedule and random numbers.",
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        used_by=TRAIN,
        honoured_by=TRAINING,
        description="Output folder; empty means results_dir/train.",
    )
    seed: int = field(
        1234,
        ge=-1,
        honoured_by=TRAINING,
        description="Seed of all random numbers; -1 draws a new one for each run.",
    )
    precision: Literal["bf16", "fp32", "fp16"] = field(
        "fp32", honoured_by=TRAINING, description="Number format of the training computations."
    )
    optim: OptimConfig = field(
        OptimConfig, automl="disabled", description="Optimizer and learning rates."
    )
    clip_grad_norm: float = field(
        0.1,
        math_cond=">= 0.0",
        honoured_by=TRAINING,
        description="Largest L2 norm of the gradient; longer ones are scaled down. 0 turns "
        "clipping off.",
    )
    enable_ema: bool = field(
        False,
        honoured_by=TRAINING,
        description="Keep an exponential moving average of the weights, validate it and save it in "
        "the checkpoints.",
    )
    ema: EmaConfig = field(
        EmaConfig, automl="disabled", description="How the weights are averaged."
    )
    freeze: list[str] = field(
        [],
        honoured_by=TRAINING,
        automl="disabled",
        description="What is not trained: backbone, encoder, decoder, or the dotted name of a "
        "module or parameter in them. An unknown name is an error.",
    )
    activation_checkpoint: bool = field(
        True,
        honoured_by=TRAINING,
        description="Compute the backbone's activations again in the backward pass: less GPU "
        "memory, more time.",
    )
    distributed_strategy: Literal["ddp", "fsdp"] = field(
        "ddp",
        honoured_by=TRAINING,
        description="How the GPUs share the work: ddp keeps the model on each; fsdp splits it, and "
        "computes in fp16 on CUDA, as in TAO, and in fp32 on CPU.",
    )
    cudnn: CudnnConfig = field(CudnnConfig, automl="disabled", description="cuDNN's switches.")
    is_dry_run: bool = field(
        False,
        honoured_by=TRAINING,
        description="One step of training and one batch of validation, to see whether all works; "
        "no checkpoint is left.",
    )
    checkpointer: CheckpointerConfig = field(
        CheckpointerConfig,
        automl="disabled",
        switch="enable_topk",
        description="Checkpoints ranked by a metric.",
    )
