"""`train.checkpointer`: checkpoints ranked by a metric, and what they are called."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import TYPE_CHECKING, Literal

from rtdetr_slurm.contract import LATEST_SUFFIX, TRAINING_KPIS, Kpi
from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.fields import TRAINING, OptionalText, Section, field
from rtdetr_slurm.yaml_source import KeyPath, show

if TYPE_CHECKING:
    from rtdetr_slurm.spec.experiment import ExperimentConfig

_AT: KeyPath = ("train", "checkpointer")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_RESERVED = re.compile(r"(model|interrupted)_epoch_[0-9]+(_step_[0-9]+)?")
_MOST_CHARACTERS = 200
"""File systems allow 255 bytes, temporary names included."""


class CheckpointerConfig(Section):
    """Checkpoints ranked by a metric."""

    enable_topk: bool = field(
        False, honoured_by=TRAINING, description="Keep the best checkpoints by a metric as well."
    )
    replace_periodic: bool = field(
        False,
        honoured_by=TRAINING,
        description="Keep the best checkpoints and the last one, and no other: those of "
        "checkpoint_interval are removed when a later one is written.",
    )
    save_top_k: int = field(
        1, ge=1, honoured_by=TRAINING, description="How many of the best to keep."
    )
    monitor: OptionalText = field(
        "",
        honoured_by=TRAINING,
        description="Metric that ranks them: val_mAP, val_mAP50, val_loss or train_loss; empty "
        "means val_mAP.",
    )
    mode: Literal["min", "max"] | None = field(
        None,
        honoured_by=TRAINING,
        description="Whether a lower or a higher metric is better; null goes by the metric.",
    )
    filename: OptionalText = field(
        "model_best_{epoch:03d}",
        honoured_by=TRAINING,
        description="Pattern of their file names, before .pth: {epoch:03d}, and metrics as in "
        "{val_mAP:.3f}. Each is a second name of the epoch's model_epoch_NNN.pth.",
    )
    dirpath: OptionalText = field(
        "",
        path="write",
        honoured_by=TRAINING,
        description="Folder for these names, of this training alone; empty means its results_dir.",
    )
    auto_insert_metric_name: bool = field(
        False,
        honoured_by=TRAINING,
        description="Put names into the file names: {epoch:03d} becomes epoch=007.",
    )

    @property
    def metric(self) -> str:
        """What ranks them."""
        return self.monitor or Kpi.VAL_MAP

    def file_name(self, epoch: int, kpis: Mapping[str, float]) -> str:
        """What the checkpoint of an epoch is called, .pth included.

        Raises:
            ValueError: the pattern cannot be filled in.
        """
        parts = []
        values: dict[str, int | float] = {**kpis, "epoch": epoch}
        for text, name, spec, _ in Formatter().parse(self.filename):
            parts.append(text)
            if name is not None:
                parts += [f"{name}="] if self.auto_insert_metric_name else []
                parts.append(format(values.get(name, math.nan), spec or ""))
        return "".join([*parts, ".pth"])


def names_are_sound(experiment: ExperimentConfig, action: str) -> Iterator[Problem]:
    """The pattern gives each epoch a file name of its own, and no other file's."""
    train = experiment.train
    cfg = train.checkpointer
    if action not in TRAINING or not cfg.enable_topk:
        return
    if problem := _pattern_problem(cfg, train.num_epochs):
        yield Problem((*_AT, "filename"), f"found {show(cfg.filename)}; {problem}")


def _pattern_problem(cfg: CheckpointerConfig, num_epochs: int) -> str | None:
    known = ["epoch", Kpi.TRAIN_LOSS] if cfg.metric == Kpi.TRAIN_LOSS else ["epoch", *TRAINING_KPIS]
    try:
        fields = [one for one in Formatter().parse(cfg.filename) if one[1] is not None]
        for _, name, _, conversion in fields:
            if name not in known or conversion:
                found = f"{{{name}{'!' if conversion else ''}{conversion or ''}}}"
                return f"{found} is not known; allowed: {', '.join(f'{{{one}}}' for one in known)}"
        kpis = dict.fromkeys(TRAINING_KPIS, 0.5)
        names = [cfg.file_name(epoch, kpis) for epoch in range(num_epochs)]
    except ValueError as error:
        return f"{error}; allowed: a pattern such as 'model_best_{{epoch:03d}}'"
    stems = [name.removesuffix(".pth") for name in names]
    if wrong := next((s for s in stems if not _FILE_NAME.fullmatch(s) or ".." in s), None):
        return (
            f"it would name a file {show(wrong)}; allowed: letters, digits and . _ = + -, "
            "beginning with a letter or a digit, and no folder (that is dirpath's)"
        )
    if len(max(names, key=len)) > _MOST_CHARACTERS:
        return f"allowed: names of up to {_MOST_CHARACTERS} characters"
    if stems[0].endswith(".pth"):
        return "allowed: without .pth, which is put behind it"
    if _RESERVED.fullmatch(stems[0]) or names[0].endswith(LATEST_SUFFIX):
        return f"{show(names[0])} is what another kind of checkpoint is called; allowed: others"
    if len({*names}) < num_epochs:
        return "two epochs would have one name; allowed: a pattern with {epoch}, as {epoch:03d}"
    return None


def monitored_is_known(experiment: ExperimentConfig, action: str) -> Iterator[Problem]:
    """What ranks checkpoints, or ends a training early, is a value that the training computes."""
    if action not in TRAINING:
        return
    cfg, stopping = experiment.train.checkpointer, experiment.engine.early_stopping
    watching: list[tuple[KeyPath, str]] = []
    if cfg.enable_topk:
        watching.append(((*_AT, "monitor"), cfg.metric))
    if stopping.patience:
        watching.append((("engine", "early_stopping", "monitor"), stopping.monitor))
    for path, metric in watching:
        if metric not in TRAINING_KPIS:
            yield Problem(path, f"found {show(metric)}; allowed: {', '.join(TRAINING_KPIS)}")
        elif metric != Kpi.TRAIN_LOSS and experiment.dataset.val_data_sources is None:
            yield Problem(
                path,
                f"found {show(metric)}, which nothing computes without "
                f"dataset.val_data_sources; allowed: {Kpi.TRAIN_LOSS}, or a set to validate on",
                also=(("dataset", "val_data_sources"),),
            )
