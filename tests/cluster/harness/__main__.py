"""By hand: `python -m tests.cluster.harness install|up|down|image`."""

from __future__ import annotations

import argparse
import sys

from . import slurm
from .apptainer import apptainer
from .image import image
from .install import install_packages
from .machine import HarnessError, why_not


def main() -> int:
    """Do one step and print what it made on stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.harness", description=__doc__)
    parser.add_argument("step", choices=("install", "up", "down", "image"))
    step = parser.parse_args().step
    reason = why_not()
    if reason:
        print(reason, file=sys.stderr)
        return 3
    try:
        if step == "down":
            slurm.end()
            return 0
        install_packages()
        program = apptainer()
        if step == "install":
            print(program)
        elif step == "image":
            print(image().path)
        else:
            cluster = slurm.keep()
            print(f"export SLURM_CONF={cluster.conf}")
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


sys.exit(main())
