"""`wandb`: Weights & Biases. Nothing is ever sent from here; the section is TAO's."""

from __future__ import annotations

from rtdetr_slurm.spec.fields import OptionalText, Section, field


class WandbConfig(Section):
    """Weights & Biases settings of TAO."""

    enable: bool = field(
        True,
        also_default=(False,),
        description="Log to Weights & Biases. TAO does so when it finds a login; this engine never "
        "sends anything.",
    )
    project: OptionalText = field("TAO Toolkit", description="Project the runs are filed under.")
    entity: OptionalText = field("", description="User or team that owns the project.")
    group: OptionalText = field("", description="Group of runs that belong together.")
    name: OptionalText = field(
        "TAO Toolkit Training",
        also_default=("TAO Toolkit training experiment",),
        description="Name of the run.",
    )
    run_id: OptionalText = field("", description="Id of an earlier run to continue.")
    tags: list[str] = field(
        ["tao-toolkit"],
        automl="disabled",
        also_default=(["training", "tao-toolkit"],),
        description="Labels of the run.",
    )
    reinit: bool = field(False, description="Allow several runs in one process.")
    save_code: bool = field(False, description="Upload a copy of the source code.")
    sync_tensorboard: bool = field(False, description="Copy the TensorBoard scalars.")
