"""Whether a spec's training is a search, and which search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.actions import EngineOf, get_action
from rtdetr_slurm.automl.space import Space, search_space
from rtdetr_slurm.contract import AUTOML_DIR, COSTS, Kpi
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.installed import python_path
from rtdetr_slurm.model_check import InvalidInput, Problem, locate
from rtdetr_slurm.plan.chain import Searching
from rtdetr_slurm.plan.model import Array
from rtdetr_slurm.plan.search import EVALUATE_BEST, Objective, Search
from rtdetr_slurm.resources import schemas_dir, specs_dir
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec
from rtdetr_slurm.spec.automl import MULTI_FIDELITY
from rtdetr_slurm.spec.experiment import used_sections
from rtdetr_slurm.spec.needs import check_chain
from rtdetr_slurm.spec.rules import check_experiment
from rtdetr_slurm.spec.train import TrainConfig
from rtdetr_slurm.yaml_source import load_yaml

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Site


@dataclass(frozen=True)
class Asked:
    """What a spec's training is to be.

    Attributes:
        searching: None: one plain training.
        explicit: whether somebody has said so, be it in the spec or on the command line.
        notes: what the user should know about it.
    """

    searching: Searching | None = None
    explicit: bool = False
    notes: tuple[str, ...] = ()


class NoSearch(RequestError):
    """Why a training cannot be a search; one that nobody has said anything about is a plain one."""


def asked_of(
    loaded: LoadedSpec, spec: Mapping[str, Any], site: Site, warm_start: tuple[str, ...] = ()
) -> Asked:
    """The search that a spec asks for, or that its training is by default.

    Args:
        spec: frozen, of `loaded`.
        warm_start: the journals of automl.warm_start.

    Raises:
        RequestError: it asks for a search that cannot be.
        SiteError: the site's limits do not allow it.
    """
    policy, action = loaded.automl.policy, get_action(loaded.action)
    if not may_search(loaded):
        never = () if policy != "on" else (f"AutoML: {action.name} is never searched around",)
        return Asked(explicit=policy is not None, notes=never)
    try:
        if site.scheduler == "local" and policy is None:
            raise NoSearch(
                "on this machine AutoML searches only where it is asked to (--automl on), one "
                "trial at a time"
            )
        space = space_of(loaded, spec, site.engine_of)
    except NoSearch as why:
        if policy == "on":
            raise NoSearch(f"automl.policy: found on; {why}") from None
        return Asked(notes=(f"plain training: {why}",))
    search, notes = _search(loaded, spec, site, space)
    search = replace(search, warm_start=warm_start)
    workers, data = _workers(loaded, site, search), loaded.experiment.dataset
    scored = data.test_data_sources is not None or data.val_data_sources is not None
    searched = [parameter.field for parameter in space.parameters]
    if "model.backbone" in searched and site.models:
        notes.append("model.backbone is searched, so no pretrained weights of the site are used")
    notes += [] if scored else [f"{EVALUATE_BEST}: left out, as there are no data to score on"]
    return Asked(Searching(search, workers, scored), policy is not None, tuple(notes))


def may_search(loaded: LoadedSpec) -> bool:
    """Whether the spec's own action is one that searches, as far as the policy goes."""
    policy = loaded.automl.policy
    action = get_action(loaded.action)
    return action.trains and (policy == "on" or (policy is None and action.searches))


def space_of(loaded: LoadedSpec, spec: Mapping[str, Any], engine_of: EngineOf) -> Space:
    """What a training has searched, by the packaged schema of its action.

    Args:
        spec: as for search_space.

    Raises:
        NoSearch: nothing tells which trial is better, or there is no schema.
        RequestError: as search_space.
    """
    if loaded.experiment.train.is_dry_run:
        raise NoSearch("a dry run (train.is_dry_run) has no scores")
    schema = read_schema(loaded.action)
    without = loaded.experiment.dataset.val_data_sources is None
    if without and {*loaded.automl.directions} - {Kpi.TRAIN_LOSS, *COSTS}:
        raise NoSearch(
            "AutoML has nothing to go by without dataset.val_data_sources; give them, or "
            "automl.metric: train_loss"
        )
    _check_algorithm(loaded)
    _check_costs(loaded, engine_of)
    _check_run_id(loaded)
    return search_space(loaded, spec, schema, engine_of)


def read_schema(action: str) -> Mapping[str, Any]:
    """The packaged schema of an action that trains.

    Raises:
        NoSearch: the model has no AutoML, or its schema or template is not there.
    """
    try:
        manifest = json.loads((schemas_dir() / "manifest.json").read_text(encoding="utf-8"))
        schema = json.loads((schemas_dir() / f"{action}.schema.json").read_text(encoding="utf-8"))
        enabled = manifest["automl_enabled"] is True
        found: Mapping[str, Any] = {
            key: schema[key]
            for key in (
                "properties",
                "$defs",
                "automl_default_parameters",
                "automl_disabled_parameters",
            )
        }
        load_yaml(specs_dir() / f"{action}.yaml")
    except (OSError, ValueError, LookupError, TypeError, RequestError):
        raise NoSearch(
            "AutoML is enabled, but not runnable until the schemas are generated "
            f"(schemas/{action}.schema.json and specs/{action}.yaml; python -m "
            "rtdetr_slurm.spec.generate)"
        ) from None
    if not enabled:
        raise NoSearch("AutoML is not enabled for this model (schemas/manifest.json)")
    return found


def _search(
    loaded: LoadedSpec, spec: Mapping[str, Any], site: Site, space: Space
) -> tuple[Search, list[str]]:
    automl, experiment = loaded.automl, loaded.experiment
    trials, notes = _trials(loaded, site)
    if experiment.train.checkpointer.enable_topk:
        notes.append(
            "train.checkpointer: without effect in the trials of a search, which itself keeps the "
            "best checkpoints of each (automl.retention)"
        )
    search = Search(
        folder=str(_search_folder(loaded, spec)),
        algorithm=automl.algorithm,
        seed=automl.seed,
        space=space.parameters,
        objectives=tuple(Objective(*one) for one in automl.directions.items()),
        trials=trials,
        epochs=experiment.train.num_epochs,
        gpu_hours=automl.max_gpu_hours,
        deadline=automl.deadline,
        reduction_factor=automl.reduction_factor,
        min_epochs=automl.min_epochs or _first_rung(experiment.train),
        population=automl.population,
        interval=automl.interval,
        retention=automl.retention,
        keep=automl.keep,
        python_path=python_path("optuna"),
    )
    return search, notes


def _first_rung(train: TrainConfig) -> int:
    """Epochs after which trials are first compared, where nobody says: early ones tell little."""
    return max(1, train.num_epochs // 6, train.validation_interval)


def _search_folder(loaded: LoadedSpec, spec: Mapping[str, Any]) -> Path:
    """Where a search is in the results; those of the action's own folder, where it names one."""
    section = spec.get(get_action(loaded.action).section) or {}
    return Path(section.get("results_dir") or spec["results_dir"]) / AUTOML_DIR


def _workers(loaded: LoadedSpec, site: Site, search: Search) -> Array:
    """No more than there are trials; on this machine one."""
    size = 1 if site.scheduler == "local" else min(loaded.automl.parallel, search.trials)
    most = loaded.automl.max_concurrent
    return Array(size, most if most is not None and most < size else None)


def _trials(loaded: LoadedSpec, site: Site) -> tuple[int, list[str]]:
    """How many, and what to say where the site allows fewer than nobody has asked for."""
    trials, most = loaded.automl.trials, site.limits.max_trials
    if most is None or trials <= most:
        return trials, []
    at = site.limits.place("max_trials")
    if "trials" in loaded.automl.model_fields_set:
        raise SiteError(
            f"the limits of site '{site.name}' are exceeded:\n"
            f"  automl.trials: found {trials}; at most {most}{at}"
        )
    return most, [f"automl.trials: {most}, the most that site '{site.name}' allows{at}"]


def _check_algorithm(loaded: LoadedSpec) -> None:
    """See that what ends trainings early has a score to go by when it does, and does it alone."""
    automl, train = loaded.automl, loaded.experiment.train
    patience = loaded.experiment.engine.early_stopping.patience
    if patience and automl.algorithm in MULTI_FIDELITY:
        problem = Problem(
            ("engine", "early_stopping", "patience"),
            f"found {patience}; allowed with automl.algorithm {automl.algorithm}, which ends "
            "trainings early by itself: 0",
            also=(("automl", "algorithm"),),
        )
        raise InvalidInput(locate(loaded.source, [problem]))
    name = "interval" if automl.algorithm == "pbt" else "min_epochs"
    first, scored = getattr(automl, name), {*automl.directions} - {Kpi.TRAIN_LOSS}
    if first is None or automl.algorithm not in MULTI_FIDELITY or not scored:
        return
    if train.validation_interval > first:
        problem = Problem(
            ("train", "validation_interval"),
            f"found {train.validation_interval}; allowed with automl.algorithm "
            f"{automl.algorithm}: ≤ {first}, the epochs after which trials are compared "
            f"(automl.{name})",
            also=(("automl", name), ("automl", "algorithm")),
        )
        raise InvalidInput(locate(loaded.source, [problem]))


def _check_costs(loaded: LoadedSpec, engine_of: EngineOf) -> None:
    """See that the engine reports what the search goes by."""
    costs = [name for name in loaded.automl.directions if name in COSTS]
    if costs and engine_of(loaded.action) == "tao":
        problem = Problem(
            ("automl", "objectives"),
            f"found {costs[0]}, which TAO's image does not report; allowed there: metrics of the "
            "detections, and losses",
        )
        raise InvalidInput(locate(loaded.source, [problem]))


def _check_run_id(loaded: LoadedSpec) -> None:
    """See that trials do not all log to one run at Weights & Biases."""
    wandb = loaded.experiment.wandb
    if wandb.enable and wandb.run_id:
        problem = Problem(
            ("wandb", "run_id"),
            f"found {wandb.run_id!r}; allowed in a search: nothing, for each trial is a run of its "
            "own; wandb.group keeps them together",
        )
        raise InvalidInput(locate(loaded.source, [problem]))


def with_evaluation(loaded: LoadedSpec, site: Site) -> tuple[LoadedSpec, str]:
    """The same spec with what the best trial is scored on, and a line that says what that is.

    Args:
        loaded: of a search that has data to score on.

    Raises:
        InvalidInput: the spec is wrong about the scoring.
    """
    experiment = loaded.experiment
    data = experiment.dataset
    source = "test" if data.test_data_sources is not None else "val"
    scored_on = getattr(data, f"{source}_data_sources")
    experiment = experiment.model_copy(
        update={"dataset": data.model_copy(update={"test_data_sources": scored_on})}
    )
    given = experiment.model_fields_set | set(used_sections("evaluate"))
    values = {name: getattr(experiment, name) for name in ExperimentConfig.model_fields}
    experiment = ExperimentConfig.model_construct(_fields_set=given, **values)
    job = loaded.job.model_copy(update={"then": [], "checkpoint": None})
    actions = (loaded.action, "evaluate")
    problems = [*check_experiment(experiment)]
    problems += check_chain(experiment, actions, job, site.engine_of)
    if experiment.evaluate.is_quantized:
        why = "found true; what a search leaves is not quantized; allowed with AutoML: false"
        problems.append(Problem(("evaluate", "is_quantized"), why))
    if problems:
        raise InvalidInput(locate(loaded.source, problems))
    note = f"{EVALUATE_BEST}: the best trial is scored on dataset.{source}_data_sources"
    return replace(loaded, experiment=experiment), note
