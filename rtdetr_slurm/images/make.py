"""Building and pulling an image: never on a GPU's time, verified, and in place in one step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rtdetr_slurm.errors import ActionError, RequestError, SiteError
from rtdetr_slurm.images.turn import BEAT_S, turn
from rtdetr_slurm.lifetime import ends_with_me
from rtdetr_slurm.runs.images import ImageRecord, record_new

_GPU_VARIABLES = (
    *("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_GPUS"),
    *("SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_TASK"),
)
_GB = 1000**3
_TARGET_SHARE = 3
"""An image is about so much smaller than what it is packed from."""
_UNPACKS = ("docker:", "docker-archive:", "docker-daemon:", "oci:", "oci-archive:")


@dataclass(frozen=True)
class Order:
    """An image to make.

    Attributes:
        source: `build`: a definition file, or whatever else `apptainer build` takes; `pull`: an
            address.
        flags: further arguments of apptainer.
        run_flags: of `apptainer exec`, by which the new image is tried.
        sha256: digest that the image must have.
        replace: whether an image that is there already gives way.
        space_gb: free space that is wanted for temporary files.
    """

    how: Literal["build", "pull"]
    source: str
    target: Path
    apptainer: str = "apptainer"
    flags: Sequence[str] = ()
    run_flags: Sequence[str] = ()
    sha256: str | None = None
    replace: bool = False
    space_gb: float = 0.0
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


def make_image(order: Order, cache: Path | None, on_note: Callable[[str], None]) -> ImageRecord:
    """Build or pull, verify, and only then put the image into its place.

    What apptainer says goes to stderr. Whatever goes wrong, `order.target` is as it was.

    Args:
        cache: where digests of images are remembered, so that `submit` need not compute this one.
        on_note: is told what takes its time.

    Raises:
        RequestError: there is an image already, or the source is none.
        SiteError: this is a GPU job, somebody else makes it, or there is no room or no apptainer.
        ActionError: apptainer failed, or what it made is not right.
    """
    _refuse_gpu_job(order.environ)
    program = shutil.which(order.apptainer, path=order.environ.get("PATH", os.defpath))
    if program is None:
        raise SiteError(
            f"there is no '{order.apptainer}' here; name it in the site profile (apptainer:), or "
            "load its module"
        )
    if order.source.startswith("-"):
        raise RequestError(f"{order.source!r} is no definition file and no address")
    target = order.target.absolute()
    if not target.parent.is_dir():
        raise RequestError(f"{target.parent} is no folder; make it first")
    _refuse_existing(target, order)
    with turn(target) as (partial, beat), _workspace(order) as environ:
        _refuse_existing(target, order)  # somebody may have made it a moment ago
        _check_space(order, Path(environ["APPTAINER_TMPDIR"]), target.parent)
        words = [program, order.how, *order.flags, str(partial), order.source]
        _run(words, environ, beat)
        if not partial.is_file():
            raise ActionError(f"apptainer {order.how} left no image file")
        _sync(partial)
        on_note("verifying the image")
        _try_out(program, order, partial, environ, beat)
        return record_new(partial, target, order.sha256, program, cache, on_note)


def _refuse_gpu_job(environ: Mapping[str, str]) -> None:
    held = [name for name in _GPU_VARIABLES if environ.get(name, "0") not in ("", "0")]
    if "SLURM_JOB_ID" in environ and held:
        raise SiteError(
            f"this is a job that holds GPUs ({held[0]}={environ[held[0]]}), which would idle for "
            "minutes: make the image on the login node or in a job without GPUs"
        )


def _refuse_existing(target: Path, order: Order) -> None:
    if target.is_dir():
        raise RequestError(f"{target} is a folder; name the file of the image")
    if target.exists() and not order.replace:
        raise RequestError(
            f"{target} exists already and is left as it is; choose a name that is not in use, or "
            "--force to replace it (jobs that wait in the queue with it will refuse the new one)"
        )


@contextmanager
def _workspace(order: Order) -> Iterator[dict[str, str]]:
    """The environment of apptainer, with a folder of its own for temporary files, which is gone
    afterwards; so is the cache, unless the user has one: the default in the home folder fills it.

    Raises:
        SiteError: there is no such place.
    """
    environ = dict(order.environ)
    named = environ.get("APPTAINER_TMPDIR") or environ.get("TMPDIR") or "/tmp"
    try:
        folder = tempfile.mkdtemp(prefix="rtdetr-image-", dir=named)
    except OSError as error:
        raise SiteError(
            f"temporary files cannot be written to {named}: {error.strerror}; name another folder "
            "by APPTAINER_TMPDIR"
        ) from error
    try:
        environ["APPTAINER_TMPDIR"] = folder
        environ.setdefault("APPTAINER_CACHEDIR", str(Path(folder) / "cache"))
        yield environ
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_space(order: Order, scratch: Path, folder: Path) -> None:
    unpacks = order.how == "build" or order.source.startswith(_UNPACKS)
    wanted = [(folder, order.space_gb / _TARGET_SHARE, "")]
    wanted += [(scratch, order.space_gb, " (APPTAINER_TMPDIR names another place)")] * unpacks
    for where, least, remedy in wanted:
        free = shutil.disk_usage(where).free / _GB
        if free < least:
            raise SiteError(
                f"{where} has {free:.1f} GB free, and the image may take {least:.1f} there"
                f"{remedy}; make room, or say --space GB if it is smaller"
            )


def _run(words: Sequence[str], environ: Mapping[str, str], beat: Callable[[], None]) -> None:
    """Run apptainer; its words go to stderr."""
    with subprocess.Popen(
        words,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        preexec_fn=ends_with_me(),
    ) as process:
        try:
            while True:
                try:
                    code = process.wait(timeout=BEAT_S)
                    break
                except subprocess.TimeoutExpired:
                    beat()
        except BaseException:
            process.terminate()
            raise
    if code != 0:
        hint = (
            ". Where it may not become root, --apptainer-flag=--fakeroot may help, or another "
            "machine (docs/containers.md)"
        )
        raise ActionError(
            f"apptainer {words[1]} ended with {code}; its own reason is above"
            + hint * (words[1] == "build")
        )


def _try_out(
    program: str,
    order: Order,
    partial: Path,
    environ: Mapping[str, str],
    beat: Callable[[], None],
) -> None:
    """See that the image can be mounted and runs a program."""
    beat()
    words = [program, "--quiet", "exec", "--cleanenv", "--no-home", "--no-mount", "home,cwd"]
    words += ["--pwd", "/", *order.run_flags, str(partial), "true"]
    done = subprocess.run(
        words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ActionError(f"the image does not run here: {said.splitlines()[-1]}")


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
