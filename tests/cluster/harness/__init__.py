"""A real Slurm and a real Apptainer on one plain Debian machine, for the tests.

`install` brings the programs, `apptainer` a relocated Apptainer, `slurm` the daemons of a private
cluster, `image` the container image, `site` the site profile that describes it all.
"""
