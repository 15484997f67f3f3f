"""The pretrained weights of the site profile (`models`), for a training that names none itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from rtdetr_slurm.actions import last_that_leaves
from rtdetr_slurm.automl.policy import may_search
from rtdetr_slurm.errors import SiteError, near
from rtdetr_slurm.model_check import InvalidInput, locate
from rtdetr_slurm.resolved_spec import value_at, with_value
from rtdetr_slurm.runs.checkpoints import verify_weights
from rtdetr_slurm.runs.inference import ptm_if_no_resume_model
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import LoadedSpec
from rtdetr_slurm.spec.automl import named_fields
from rtdetr_slurm.spec.model import Backbone
from rtdetr_slurm.spec.needs import frozen_names_exist

_DETECTOR = "rtdetr_"
"""Before a backbone's name: weights of a whole detector with it."""
_FIELDS = {_DETECTOR: "train.pretrained_model_path", "": "model.pretrained_backbone_path"}
"""What each kind fills; the whole detector's come first, for they hold the backbone's, too."""
_RESUMED = "train.resume_training_checkpoint_path"


@dataclass(frozen=True)
class Pretrained:
    """Weights that were filled in.

    Attributes:
        name: under which the site profile has them.
    """

    field: str
    name: str
    path: str

    @property
    def note(self) -> str:
        return f"{self.field}: {self.path}, which the site profile has as models.{self.name}"


def find_pretrained(loaded: LoadedSpec, spec: Mapping[str, Any], site: Site) -> Pretrained | None:
    """The site's weights for what is trained; None where the spec names some, goes on from a
    checkpoint, or searches for a backbone, or the site has none.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        SiteError: the profile has a name that is no model's, or the file is missing or damaged.
        InvalidInput: train.freeze names what the detector does not have with these weights.
    """
    backbones = get_args(Backbone)
    known = [prefix + backbone for prefix in _FIELDS for backbone in backbones]
    for name in site.models:
        if name not in known:
            raise SiteError(
                f"site '{site.name}': models.{name}: allowed: a backbone's name, such as "
                f"resnet_50, or {_DETECTOR} before one{near(name, known)}"
            )
    if "train" not in loaded.actions or any(value_at(spec, one) for one in _FIELDS.values()):
        return None
    if may_search(loaded) and "model.backbone" in named_fields(loaded.automl):
        return None  # they are of one
    before = loaded.actions[: loaded.actions.index("train")]
    continued = loaded.job.parent is not None and last_that_leaves("checkpoint", before) is None
    resumes = continued or bool(value_at(spec, _RESUMED))
    for prefix, field in _FIELDS.items():
        name = prefix + loaded.experiment.model.backbone
        path = ptm_if_no_resume_model(site.models, name, resumes=resumes)
        if path is not None:
            if problem := verify_weights(Path(path)):
                raise SiteError(f"site '{site.name}': models.{name}: {problem}")
            found = Pretrained(field, name, path)
            _see_that_frozen_names_stay(loaded, found)
            return found
    return None


def _see_that_frozen_names_stay(loaded: LoadedSpec, found: Pretrained) -> None:
    """The detector keeps the norms of a pretrained backbone constant, so that they have no
    parameters that `train.freeze` could name."""
    model = loaded.experiment.model
    if found.field == _FIELDS[""]:
        model = model.model_copy(update={"pretrained_backbone_path": found.path})
    experiment = loaded.experiment.model_copy(update={"model": model})
    because = f" with the weights that the site profile has as models.{found.name}"
    problems = [
        replace(problem, message=problem.message + because)
        for problem in frozen_names_exist(experiment, "train")
    ]
    if problems:
        raise InvalidInput(locate(loaded.source, problems))


def filled_in(spec: Mapping[str, Any], found: Pretrained | None) -> dict[str, Any]:
    """A copy of a frozen spec with these weights in their place."""
    return dict(spec) if found is None else with_value(spec, found.field, found.path)
