"""The site profile of the test cluster, as an administrator would write it."""

from __future__ import annotations

from pathlib import Path

import yaml

from .apptainer import apptainer
from .image import Image
from .machine import REPO
from .slurm_conf import TENSORRT, TRAIN

PACKAGE = "rtdetr_slurm"


def write_site(path: Path, image: Image, run_root: Path) -> Path:
    """Write the profile to `path`; jobs run the working tree's package, not the image's copy."""
    profile = {
        "name": "test-cluster",
        "partition": TRAIN,
        "roles": {"tensorrt": {"partition": TENSORRT}},
        "time": 15,
        "cpus_per_task": 2,
        "mem_gb": 4,
        "gpu": {"request": "gpus-per-node"},
        "image": str(image.path),
        "binds": [
            {"source": str(REPO / PACKAGE), "target": image.package_dir, "read_only": True},
        ],
        # Two would wait for each other wherever other jobs want the same few cores, for most of the
        # time of a training as small as these.
        "env": [{"OMP_NUM_THREADS": "1"}],
        "run_root": str(run_root),
        # The GPUs here are only device files.
        "accelerator": "cpu",
        "apptainer": str(apptainer()),
        "apptainer_flags": ["--userns"],
        "signal_lead_s": 60,
    }
    path.write_text(yaml.safe_dump(profile, sort_keys=False))
    return path
