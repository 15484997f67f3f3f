"""On the compute node, outside the container: stage run → step (srun) → node wrapper → apptainer.

Standard library only.
"""
