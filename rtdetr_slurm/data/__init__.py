"""Data sets as files: COCO annotations, their checks, and a generated sample. Login-side safe."""
