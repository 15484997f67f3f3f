"""Choices about the training itself. One small function for what belongs together."""

from __future__ import annotations

import math

from rtdetr_slurm.spec.draft.choices import Choices
from rtdetr_slurm.spec.draft.facts import DataFacts, Hardware
from rtdetr_slurm.spec.draft.start import SIZE, ranks_of, start_of
from rtdetr_slurm.spec.memory import images_that_fit

_TOTAL_BATCH = 16
"""Images of a step over all GPUs, in the published training, whose learning rate is for it."""
_STEPS = 50
"""Steps of an epoch, at least: fewer are too few to learn from a small data set."""
_MOST_EPOCHS = 300
_VALIDATIONS = 50
_PUBLISHED_RATE = 1e-4


def batch(choices: Choices, facts: DataFacts, hardware: Hardware) -> None:
    ranks = ranks_of(choices)
    height, width = choices.value(SIZE)
    half = choices.value("train.precision") != "fp32"
    fits = [
        int(images_that_fit(hardware.memory_gb, height * width, half=half, checkpointed=kept))
        for kept in (True, False)
    ]
    wanted = max(1, _TOTAL_BATCH // ranks)
    few = max(2, _power_of_two(facts.images / (_STEPS * ranks)))
    chosen = min(wanted, few, _power_of_two(fits[0]), max(1, facts.images // ranks))
    said = hardware.said_by or "assumed; --gpu-memory says otherwise"
    reason = (
        f"A GPU of {hardware.memory_gb:g} GiB ({said}) takes about {fits[0]} images of this size; "
    )
    if chosen == wanted:
        reason += f"{_TOTAL_BATCH} in all is the batch of the published training."
    elif chosen == _power_of_two(fits[0]):
        reason += f"{_TOTAL_BATCH} in all would be the batch of the published training."
    else:
        reason += f"with more, {facts.images} images would make few steps an epoch."
    choices.choose("dataset.batch_size", chosen, reason)
    if choices.value("dataset.batch_size") <= fits[1]:
        choices.choose(
            "train.activation_checkpoint",
            False,
            "The batch fits without it, and computing activations twice takes time.",
        )


def epochs(choices: Choices, facts: DataFacts, hardware: Hardware) -> None:
    begins, _ = start_of(choices, hardware)
    least, seen = (12, 100_000) if begins == "detector" else (72, 300_000)
    number = min(max(least, round(seen / max(facts.images, 1))), _MOST_EPOCHS)
    what = {"detector": "a pretrained detector", "backbone": "a pretrained backbone"}
    reason = (
        f"Training from {what.get(begins, 'random weights')} wants to see about {seen} images: "
        f"{facts.images} so often, but no less than {least} and no more than {_MOST_EPOCHS} times."
    )
    choices.choose("train.num_epochs", number, reason)
    number = choices.value("train.num_epochs")
    interval = math.ceil(number / _VALIDATIONS)
    if interval > 1:
        reason = f"About {_VALIDATIONS} validations and checkpoints are enough to choose from."
        choices.choose("train.validation_interval", interval, reason)
        choices.choose("train.checkpoint_interval", interval, "As validation_interval.")


def rates(choices: Choices, facts: DataFacts, hardware: Hardware) -> None:
    begins, _ = start_of(choices, hardware)
    total = choices.value("dataset.batch_size") * ranks_of(choices)
    rate = _PUBLISHED_RATE * math.sqrt(total / _TOTAL_BATCH)
    reason = f"{_PUBLISHED_RATE:g} is for batches of {_TOTAL_BATCH}; this goes with the square root"
    if begins == "nothing":
        rate *= 4
        reason += ", four times as much, since random weights have far to go"
    rate = float(f"{rate:.1e}")
    choices.choose("train.optim.lr", rate, f"{reason}.")
    rate = choices.value("train.optim.lr")
    if begins == "nothing":
        choices.choose(
            "train.optim.lr_backbone", rate, "The backbone begins with random weights, too."
        )
    else:
        reason = "A tenth: the backbone is pretrained, and is to change little."
        choices.choose("train.optim.lr_backbone", float(f"{rate / 10:.1e}"), reason)
    number = choices.value("train.num_epochs")
    if number > 2 and choices.value("train.optim.lr_scheduler") == "MultiStep":
        choices.choose(
            "train.optim.lr_steps",
            [math.ceil(0.85 * number)],
            "A tenth of the rate (lr_decay) for the last seventh: weights settle.",
        )
    steps = number * _steps_per_epoch(choices, facts)
    choices.choose(
        "train.optim.warmup_steps",
        min(2000, steps // 20),
        f"2000 in the published training; here at most a twentieth of its {steps} steps.",
    )
    choices.choose("train.enable_ema", True, "As in the published training: scores get steadier.")
    window = min(max(steps / 20, 100), 10_000)
    choices.choose(
        "train.ema.decay",
        round(1 - 1 / window, 4),
        f"It averages over about {window:.0f} steps, a twentieth of all, up to the published "
        "10000.",
    )


def _steps_per_epoch(choices: Choices, facts: DataFacts) -> int:
    batch: int = choices.value("dataset.batch_size")
    return max(1, facts.images // (batch * ranks_of(choices)))


def _power_of_two(number: float) -> int:
    """The largest that is no larger."""
    return 1 << int(math.log2(number)) if number >= 1 else 1
