"""Filling the administrators' sbatch templates from a plan.

A template is a batch script that works as it is. Two blocks in it, between marked lines, hold what
is asked of Slurm and what the job runs with: these are replaced, and nothing else.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import JOBS_DIR, MODEL_FILES, Infer
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.model import Input, Origin, Stage, StageTask
from rtdetr_slurm.resolved_spec import shown_uri, spec_text, with_value
from rtdetr_slurm.resources import sbatch_dir
from rtdetr_slurm.runs.artefacts import made_file
from rtdetr_slurm.runs.inference import Maker, create_file, fetch, maker_of, output_dir
from rtdetr_slurm.slurm.script import batch_parameters
from rtdetr_slurm.submission.prepare import Prepared

LAUNCH = "launch.sh"
_RESOURCES = ("# >>> resources", "# <<< resources")
_SETTINGS = ("# >>> settings", "# <<< settings")
_END = "END_OF_SPEC"


def render(prepared: Prepared) -> dict[str, str]:
    """The batch script of each stage, from the template that is for it; by the stage's name.

    Raises:
        SiteError: the site has no Slurm, or a template is none.
        RequestError: a stage needs something that only `submit` can fill in.
    """
    if prepared.site.site.scheduler != "slurm":
        raise SiteError(f"site '{prepared.site.site.name}' has no Slurm to write batch scripts for")
    own = prepared.site.site.templates
    folders = [sbatch_dir()] if own is None else [Path(own), sbatch_dir()]
    scripts = {}
    for stage in prepared.plan.stages:
        path = _find(f"{template_of(stage)}.sbatch", folders)
        text = _replaced(path, _read(path), _RESOURCES, _resources(stage, prepared))
        kit = _find(LAUNCH, folders).parent
        scripts[stage.name] = _replaced(path, text, _SETTINGS, _settings(stage, prepared, kit))
    return scripts


def template_of(stage: Stage) -> str:
    """Name of the template that a stage is written from."""
    action = get_action(stage.action)
    if action.role == "tensorrt":
        return "deploy"
    return "train" if action.topology else "export"  # of one GPU


def commands(prepared: Prepared, files: dict[str, Path]) -> list[str]:
    """The commands that queue the scripts, each behind what it waits for."""
    lines = []
    names = {stage.name: f"job{number}" for number, stage in enumerate(prepared.plan.stages, 1)}
    for stage in prepared.plan.stages:
        own = [one for one in stage.depends_on if one.on.run is None]
        after = [f"--dependency={one.kind}:${names[one.on.stage]}" for one in own]
        words = [*after, "--kill-on-invalid-dep=yes"] if after else []
        path = shlex.quote(str(files[stage.name]))
        lines.append(f"{names[stage.name]}=$({' '.join(['sbatch --parsable', *words, path])})")
    return lines


# --- templates ---------------------------------------------------------------------------------
def _find(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise SiteError(f"there is no template {name} in {', '.join(map(str, folders))}")


def _read(path: Path) -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"template {path} cannot be read: {error}") from error
    if not text.startswith("#!"):
        raise SiteError(f"template {path}: the first line is no '#!/bin/bash'")
    return text


def _replaced(path: Path, text: str, marks: tuple[str, str], lines: Iterator[str]) -> str:
    """`text` with what stands between the two marked lines replaced.

    Raises:
        SiteError: it does not have each of them once, in this order.
    """
    found = text.split("\n")
    places = [[i for i, line in enumerate(found) if line.startswith(mark)] for mark in marks]
    if [len(one) for one in places] != [1, 1] or places[0] >= places[1]:
        raise SiteError(
            f"template {path}: needs the lines '{marks[0]}' and '{marks[1]}', each once, around "
            "what is to be filled in"
        )
    [first], [last] = places
    return "\n".join([*found[: first + 1], *lines, *found[last:]])


# --- what is filled in ---------------------------------------------------------------------------
def _resources(stage: Stage, prepared: Prepared) -> Iterator[str]:
    """The `#SBATCH` lines of `submit`, but for its own folder and token."""
    from rtdetr_slurm.slurm.executor import BatchExecutor  # submitit is slow to import

    parameters = batch_parameters(
        stage,
        chdir="",
        job_dir="",
        comment=f"rtdetr-slurm:rendered:{stage.name}",
        job_name=prepared.name or f"rtdetr-{stage.name}",
    )
    additional = {k: v for k, v in parameters["additional_parameters"].items() if k != "chdir"}
    parameters |= {"setup": [], "additional_parameters": additional}
    for line in BatchExecutor(prepared.run_dir, [], parameters).script().splitlines():
        if line.startswith("#SBATCH") and not line.startswith(
            ("#SBATCH --output=", "#SBATCH --err")
        ):
            yield line
    yield "#SBATCH --output=%x-%j.out"


def _settings(stage: Stage, prepared: Prepared, kit: Path) -> Iterator[str]:
    launch, container = stage.launch, stage.container
    if launch.engine == "tao":
        raise RequestError(
            f"stage {stage.name} runs in TAO's image, which only `submit` keeps to its own nodes "
            "and GPUs"
        )
    if stage.local_copy:
        raise RequestError("job.local_copy: a rendered script copies nothing; use submit")
    work = prepared.run_dir / JOBS_DIR / stage.name
    yield from launch.module_lines
    yield f"KIT={_word(kit)}"
    yield f"WORK={_word(work)}"
    yield f"RESULTS={_word(stage.results_dir)}"
    program, action, _, _, *more = stage.command
    yield f"PROGRAM={_word(program)}"
    yield f"ACTION={_word(action)}"
    yield f"ARGUMENTS={_list(more)}"
    fields, choice = _checkpoints(stage, prepared)
    yield f"PARENTS={_list(fields)}"
    yield f"CHECKPOINT={_word(choice)}"
    yield f"IMAGE={_word(container.image.path if container else '')}"
    yield f"PYTHON={_word('' if container else launch.python or sys.executable)}"
    yield f"APPTAINER={_word(container.apptainer if container else '')}"
    yield f"APPTAINER_FLAGS={_list(container.flags if container else ())}"
    binds = container.binds if container else ()
    yield f"BINDS={_list([bind.mount_option() for bind in binds])}"
    yield f"CONTAINER_ENV={_list([*_environment(stage)])}"
    yield f"SCRATCH={_word(launch.scratch or '')}"
    yield f"ACCELERATOR={_word(launch.accelerator or '')}"
    yield f"GPUS={stage.resources.gpus_per_node}"
    yield f"MAX_REQUEUES={launch.endurance.max_requeues if launch.requeue else 0}"
    yield 'SPEC="$WORK/rendered.yaml"'
    yield f'mkdir -p "$WORK" && cat > "$SPEC" <<\'{_END}\''
    yield from _spec(stage, prepared).splitlines()
    yield _END


def _spec(stage: Stage, prepared: Prepared) -> str:
    """The frozen spec with what is known before the stage starts."""
    spec = dict(prepared.spec)
    for one in stage.inputs:
        if (value := _known(one, stage, prepared)) is not None:
            spec = with_value(spec, one.field, str(value))
    text = spec_text(spec)
    if _END in text.splitlines():
        raise RequestError(f"the spec has a line '{_END}', with which a script ends it")
    return text


def _known(one: Input, stage: Stage, prepared: Prepared) -> Path | None:
    """The value of an input that does not depend on what a training has left."""
    task = StageTask(stage)
    if one.function == Infer.OUTPUT_DIR:
        return output_dir(task)
    if one.function in MODEL_FILES:
        return create_file(one.function, task)
    if one.function == Infer.FETCH and one.uri is not None:
        if one.origin is not None:
            raise RequestError(
                f"{one.field}: found {shown_uri(one.uri)}; a rendered script fetches and unpacks "
                "nothing: name a path, or use submit"
            )
        return fetch(one.uri)
    if one.origin is None:
        return None
    maker = _maker(one.origin, prepared)
    if one.function == Infer.PARENT_MODEL_FOLDER:
        return maker.results_dir
    if one.function == Infer.PARENT_MODEL and maker.action.leaves != "checkpoint":
        return made_file(maker.action, maker.results_dir, maker.spec)
    return None


def _checkpoints(stage: Stage, prepared: Prepared) -> tuple[list[str], str]:
    """FIELD=FOLDER of each field that a checkpoint fills when the stage starts, and which one.

    Raises:
        RequestError: only `submit` can fill a field in.
    """
    fields, choices = [], set()
    for one in stage.inputs:
        if _known(one, stage, prepared) is not None:
            continue
        if one.origin is None or one.function not in (Infer.PARENT_MODEL, Infer.RESUME_MODEL):
            raise RequestError(
                f"{one.field}: stage {stage.name} takes {one.source} when it starts, which only "
                "`submit` does; give the field a value of its own"
            )
        fields.append(f"{one.field}={_maker(one.origin, prepared).results_dir}")
        choices.add(one.choice or ("last" if one.function == Infer.RESUME_MODEL else ""))
    if len(choices) > 1:
        raise RequestError(
            f"stage {stage.name} takes several checkpoints, which only `submit` does"
        )
    return fields, "".join(choices)


def _maker(origin: Origin, prepared: Prepared) -> Maker:
    if origin.run is not None:
        return maker_of(None, origin)
    stage = prepared.plan.stage(origin.stage)
    return Maker(get_action(stage.action), StageTask(stage).results_dir, prepared.spec)


def _environment(stage: Stage) -> Iterator[str]:
    """`NAME` of what the host has, `NAME=value` of what the site sets."""
    launch = stage.launch
    if launch.network_interface is not None:
        yield f"NCCL_SOCKET_IFNAME={launch.network_interface}"
        yield f"GLOO_SOCKET_IFNAME={launch.network_interface}"
    yield "OMP_NUM_THREADS"
    for name, value in launch.env.items():
        yield name if value is None else f"{name}={value}"
    yield from launch.secrets


def _word(value: object) -> str:
    return shlex.quote(str(value))


def _list(values: Sequence[str]) -> str:
    return f"({' '.join(map(_word, values))})"
