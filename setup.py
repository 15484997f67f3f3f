"""What pyproject.toml cannot say: three folders of the repository's root belong to the package."""

from pathlib import Path

from setuptools import find_packages, setup

# Where they lie is in pyproject.toml (package-dir), what they hold too (package-data). An image is
# built without the administrators' templates, which nobody looks for inside.
FOLDERS = ("schemas", "specs", "sbatch")
setup(
    packages=[
        *find_packages(include=["rtdetr_slurm", "rtdetr_slurm.*"]),
        *(f"rtdetr_slurm.{name}" for name in FOLDERS if Path(__file__).with_name(name).is_dir()),
    ]
)
