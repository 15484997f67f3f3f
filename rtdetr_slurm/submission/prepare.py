"""From a spec file to a run folder: everything is checked and decided before anything is queued."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rtdetr_slurm import __version__
from rtdetr_slurm.actions import last_that_leaves
from rtdetr_slurm.automl.policy import Asked
from rtdetr_slurm.contract import LAUNCH_VERSION
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.resolved_spec import with_values
from rtdetr_slurm.runs.images import cache_file, glance, record_image, record_weights
from rtdetr_slurm.runs.processes import user_name
from rtdetr_slurm.runs.run import (
    Manifest,
    Run,
    create_run,
    freeze_spec,
    new_run_id,
)
from rtdetr_slurm.site.discover import FoundSite, find_site
from rtdetr_slurm.slurm.names import JOB_NAME
from rtdetr_slurm.spec import LoadedSpec, check_for_any_image, load_spec
from rtdetr_slurm.spec.keys import without_key
from rtdetr_slurm.submission.claims import check_results
from rtdetr_slurm.submission.controller import write_controller
from rtdetr_slurm.submission.data import check_data
from rtdetr_slurm.submission.files import check_files, record_files
from rtdetr_slurm.submission.parent import check_inputs, find_parent
from rtdetr_slurm.submission.pretrained import Pretrained, filled_in, find_pretrained
from rtdetr_slurm.submission.search import draws_of, find_search, fitted
from rtdetr_slurm.submission.staging import check_local_copy, find_sources, find_upload
from rtdetr_slurm.submission.studies import check_search
from rtdetr_slurm.submission.teacher import check_teacher
from rtdetr_slurm.submission.twins import find_twin, refusal

if TYPE_CHECKING:
    from rtdetr_slurm.staging.progress import Tell


@dataclass(frozen=True)
class Prepared:
    """A submission that has passed every check and has touched nothing.

    Attributes:
        spec: frozen: resolved, with absolute paths.
        run_dir: the folder that `freeze` makes.
        asked: what training is to be.
        draws: of the trials of its search, in order; None for one that is drawn when it begins.
        pretrained: the site's weights that were filled in.
        classes: id to name, of what is trained or was trained before.
    """

    loaded: LoadedSpec
    overrides: tuple[str, ...]
    spec: dict[str, Any]
    plan: Plan
    site: FoundSite
    run_dir: Path
    name: str | None
    asked: Asked
    draws: Sequence[Mapping[str, Any] | None] = ()
    pretrained: Pretrained | None = None
    classes: Mapping[int, str] = field(default_factory=dict)


def prepare(
    spec: Path,
    overrides: Sequence[str] = (),
    *,
    action: str | None = None,
    site: str | None = None,
    name: str | None = None,
    then: Sequence[str] = (),
    parent: str | None = None,
    checkpoint: str | None = None,
    automl: str | None = None,
    datasets: Mapping[str, str | Sequence[str]] = MappingProxyType({}),
    tell: Tell = lambda _: None,
    bring_all: bool = True,
) -> Prepared:
    """Check a spec, the data it names and the site, and plan the stages.

    Args:
        overrides: `key=value`, as on the command line.
        action: what to do; else job.action, else what the spec is for.
        site: a site profile, or `local`; None: the one of this machine.
        name: of the job in the queue.
        then: names of follow-up actions; they take the place of job.then.
        parent: a run id, folder or address, or RUN/trials/K; it takes the place of job.parent.
        checkpoint: best, last, latest or epoch:N; it takes the place of job.checkpoint, and of what
            an entry of job.then says.
        automl: on or off: whether training is a search; it takes the place of automl.policy.
        datasets: roots of datasets; each takes the place of that of job.datasets.
        tell: is told how far what is fetched has come.
        bring_all: False where nothing will be submitted, so that `submit` need not bring all data
            where the site wants that of it.

    Raises:
        RequestError: the request is wrong.
        SiteError: the site cannot do it.
    """
    if name is not None and not re.fullmatch(JOB_NAME.pattern, name):
        raise RequestError(f"--name {name!r}: allowed are {JOB_NAME.allowed}")
    follow_ups = [then] if isinstance(then, str) else list(then)
    extra = [f"job.then={json.dumps(follow_ups)}"] if follow_ups else []
    extra += [f"job.parent={json.dumps(parent, ensure_ascii=False)}"] if parent else []
    extra += [f"job.checkpoint={json.dumps(checkpoint)}"] if checkpoint else []
    extra += [f"automl.policy={json.dumps(automl)}"] if automl else []
    extra += [
        f"job.datasets.{name}={json.dumps(root, ensure_ascii=False)}"
        for name, root in datasets.items()
    ]
    try:
        found = find_site(site, os.environ)
    except SiteError:
        check_for_any_image(spec, [*overrides, *extra], action)
        raise
    engine_of = found.site.engine_of
    continued = cache(lambda reference: find_parent(reference, found, tell))
    loaded = load_spec(
        spec,
        [*overrides, *extra],
        action,
        parent_spec=lambda reference: continued(reference).spec,
        engine_of=engine_of,
    )
    loaded = loaded.with_key_of(os.environ)
    if checkpoint:
        loaded = _without_other_choices(loaded)
    run_dir = found.run_root / new_run_id(loaded.action)
    frozen = frozen_spec(loaded, run_dir=run_dir, cwd=Path.cwd())
    pretrained = find_pretrained(loaded, frozen, found.site)
    frozen = filled_in(frozen, pretrained)
    searched = find_search(loaded, frozen, found)
    loaded, asked = searched.loaded, searched.asked
    frozen = filled_in(frozen_spec(loaded, run_dir=run_dir, cwd=Path.cwd()), pretrained)
    before = continued(loaded.job.parent) if loaded.job.parent else None
    scored = asked.searching is not None and asked.searching.evaluates
    actions = (*loaded.actions, *(["evaluate"] if scored else []))
    here = bring_all and found.site.staging == "login"
    brought = find_sources(loaded, frozen, actions, found, tell, bring_all=here)
    at_hand = with_values(frozen, brought.paths)
    frozen = at_hand if brought.staging is None else frozen
    plan = make_plan(
        loaded,
        frozen,
        found.site,
        run_dir=run_dir,
        parent=before,
        searching=asked.searching,
        staging=brought.staging,
        upload=find_upload(loaded, found),
        copied=brought.fields if loaded.job.local_copy else (),
    )
    copy_notes = check_local_copy(loaded, plan, found.site)
    if before is not None:
        check_inputs(loaded, frozen, plan, before)
    check_files(loaded, frozen, plan)
    check_teacher(loaded, frozen, plan)
    check_results(plan, frozen, run_dir)
    check_search(plan)
    try:
        data = check_data(loaded, at_hand, plan.stages, {} if before is None else before.classes)
    except RequestError as error:
        error.args = (brought.named(str(error)),)
        raise
    model_notes = () if pretrained is None else (pretrained.note,)
    plan = fitted(plan, loaded, data.images)
    notes = (
        *found.notes,
        *asked.notes,
        *plan.notes,
        *model_notes,
        *brought.notes,
        *copy_notes,
        *map(brought.named, data.notes),
    )
    plan = replace(plan, notes=notes)
    for stage in plan.stages:
        if stage.container is not None:
            glance(Path(stage.container.image.path))
    return Prepared(
        loaded,
        without_key(overrides)[0],
        frozen,
        plan,
        found,
        run_dir,
        name or loaded.job.name or None,
        asked,
        draws_of(plan),
        pretrained,
        data.classes,
    )


def _without_other_choices(loaded: LoadedSpec) -> LoadedSpec:
    """The spec without what entries of job.then choose where job.checkpoint is about the same."""
    job, entries = loaded.job, []
    for index, entry in enumerate(loaded.job.then, start=1):
        trained = last_that_leaves("checkpoint", loaded.actions[:index]) is not None
        same = job.parent is None or not trained
        entries.append(entry.model_copy(update={"checkpoint": None}) if same else entry)
    return replace(loaded, job=job.model_copy(update={"then": entries}))


def why_refused(prepared: Prepared, *, complete: bool) -> str | None:
    """Why this submission is refused unless it is wanted again; None where nothing does the same.

    Args:
        complete: record the end of a run whose job could not.
    """
    site = prepared.site.site.name
    twin = find_twin(prepared.run_dir, prepared.plan, prepared.spec, site, complete=complete)
    return None if twin is None else refusal(twin)


def freeze(prepared: Prepared, on_note: Callable[[str], None], *, again: bool = False) -> Run:
    """Make the run folder: everything that was decided, before anything is queued.

    Args:
        on_note: is told what takes its time.
        again: also where a run that does the same is under way.

    Raises:
        RequestError: such a run is.
        SiteError: it cannot be made, or an image is not the one that the profile demands.
    """
    if not again and (reason := why_refused(prepared, complete=True)):
        raise RequestError(reason)
    remembered = cache_file(os.environ)
    images = {}
    for stage in prepared.plan.stages:
        if stage.container is not None and stage.container.image.path not in images:
            image, apptainer = stage.container.image, stage.container.apptainer
            images[image.path] = record_image(
                Path(image.path), image.sha256, apptainer, remembered, on_note
            )
    loaded, site, weights = prepared.loaded, prepared.site, prepared.pretrained
    models = {}
    if weights is not None:
        path, known_as = Path(weights.path), weights.name
        models[known_as] = record_weights(path, known_as, remembered, on_note)
    manifest = Manifest(
        name=prepared.name,
        action=loaded.action,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        user=user_name(),
        parent=loaded.job.parent,
        package_version=__version__,
        spec=freeze_spec(str(loaded.path.absolute()), prepared.overrides, prepared.spec),
        images=images,
        classes={str(number): name for number, name in prepared.classes.items()},
        models=models,
        files=record_files(prepared.spec, prepared.plan),
        site=site.site.model_dump(mode="json"),
        site_sources=tuple(str(path) for path in site.sources),
        plan=prepared.plan,
        run_id=prepared.run_dir.name,
        launch_version=LAUNCH_VERSION,
    )
    run = create_run(prepared.run_dir, manifest)
    write_controller(run)
    return run
