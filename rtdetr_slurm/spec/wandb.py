"""`wandb`: Weights & Biases."""

from __future__ import annotations

from rtdetr_slurm.spec.fields import OptionalText, Section, field


class WandbConfig(Section):
    """What a training's run at Weights & Biases is called, and what it gets."""

    enable: bool = field(
        True,
        also_default=(False,),
        description="Log the scalars of a training, which TensorBoard's file has in any case, and "
        "its spec to Weights & Biases where there is a key (WANDB_API_KEY, ~/.netrc) or "
        "WANDB_MODE is offline. Without a key nothing is sent, and a line says so.",
    )
    project: OptionalText = field("TAO Toolkit", description="Project the runs are filed under.")
    entity: OptionalText = field(
        "", description="User or team that owns the project; empty means the key's own."
    )
    group: OptionalText = field("", description="Group of runs that belong together.")
    name: OptionalText = field(
        "TAO Toolkit Training",
        also_default=("TAO Toolkit training experiment",),
        description="Name of the run.",
    )
    run_id: OptionalText = field(
        "",
        description="Id of an earlier run to continue. Empty means that of the training that goes "
        "on, or a new one.",
    )
    tags: list[str] = field(
        ["tao-toolkit"],
        automl="disabled",
        also_default=(["training", "tao-toolkit"],),
        description="Labels of the run.",
    )
    reinit: bool = field(
        False, description="Finish a run that the same process has begun already, and begin anew."
    )
    save_code: bool = field(False, description="Upload a copy of this package's source code.")
    sync_tensorboard: bool = field(
        False,
        description="Let Weights & Biases copy TensorBoard's file, and take the scalars from it.",
    )
