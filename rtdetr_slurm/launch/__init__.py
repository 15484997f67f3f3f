"""On the compute node, outside the container: controller → srun → node wrapper → apptainer.

Standard library only.
"""
