"""What pyproject.toml cannot say: two folders of the repository's root belong to the package."""

from setuptools import find_packages, setup

# Where they lie is in pyproject.toml (package-dir), what they hold too (package-data).
setup(
    packages=[
        *find_packages(include=["rtdetr_slurm", "rtdetr_slurm.*"]),
        "rtdetr_slurm.schemas",
        "rtdetr_slurm.specs",
    ]
)
