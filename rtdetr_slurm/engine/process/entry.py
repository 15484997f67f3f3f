"""`rtdetr`: the command inside the container, with TAO's arguments.

`rtdetr-deploy` begins here, too. It validates the spec and hands over to start.py, which starts the
ranks; their work itself begins in rank.py.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rtdetr_slurm.actions import ENGINE
from rtdetr_slurm.contract import EXPERIMENT_YAML, Env, ExitCode
from rtdetr_slurm.encryption import restart_without_key
from rtdetr_slurm.engine.process.arguments import CONVERT, DEFAULT_SPECS, Arguments, parse
from rtdetr_slurm.engine.process.probe import PROBE, run_probe
from rtdetr_slurm.engine.process.start import start
from rtdetr_slurm.engine.process.stop import hold_signals
from rtdetr_slurm.errors import RequestError, UserError
from rtdetr_slurm.files import PRIVATE_FILE
from rtdetr_slurm.spec import ExperimentConfig, load_spec, to_yaml
from rtdetr_slurm.spec.keys import without_key
from rtdetr_slurm.spec.overrides import parse_override


def main(argv: Sequence[str] | None = None, program: str = ENGINE) -> int:
    """The command; stop signals are this process's to pass on from here to its end."""
    os.environ[Env.ENTERED] = f"{time.time():.3f}"
    hold_signals()
    tell_launch(os.environ)
    return command(argv, program)


def tell_launch(environ: Mapping[str, str]) -> None:
    """Say that this has begun, where somebody waits for that."""
    if (mark := environ.get(Env.STARTED)) is None:
        return
    try:
        Path(mark).touch(mode=PRIVATE_FILE)  # whatever the umask; it lies among records
    except OSError as error:
        print(f"rtdetr: cannot make {mark}: {error.strerror}", file=sys.stderr, flush=True)


def command(argv: Sequence[str] | None = None, program: str = ENGINE) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == [PROBE]:
            return run_probe(words[1:])
        if words[:1] == [CONVERT] and program == ENGINE:
            from rtdetr_slurm.engine.convert import convert  # with torch, which no other needs here

            return convert(words[1:])
        arguments = parse(words, program)
        if arguments.action == DEFAULT_SPECS:
            return write_default_spec(arguments)
        overrides, key = without_key(arguments.overrides)
        shown = replace(arguments, overrides=overrides)
        if key is not None and argv is None:
            restart_without_key(shown.command_line(), key)
        loaded = load_spec(arguments.spec, arguments.overrides, action=arguments.action)
        loaded = loaded.with_key_of(os.environ)
        for note in loaded.notes:
            print(f"rtdetr: {note}", flush=True)
        return start(loaded, shown)
    except UserError as error:
        print(f"rtdetr: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:  # while the ranks work, ranks.py sees to it
        print("rtdetr: stopped by SIGINT; no rank was started", file=sys.stderr, flush=True)
        return ExitCode.FAILED


def write_default_spec(arguments: Arguments) -> int:
    """`rtdetr default_specs results_dir=DIR`: a complete spec with every default, to start from.

    Raises:
        RequestError: no folder is named, or it holds such a file already.
    """
    given = {item.key: item.value for item in map(parse_override, arguments.overrides)}
    if set(given) != {"results_dir"} or not given["results_dir"]:
        raise RequestError("default_specs takes exactly results_dir=DIR, the folder to write to")
    path = Path(str(given["results_dir"]), EXPERIMENT_YAML)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as stream:
            stream.write(to_yaml(ExperimentConfig().model_dump()))
    except FileExistsError:
        raise RequestError(f"{path} exists already and is left as it is") from None
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}") from None
    print(path)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
