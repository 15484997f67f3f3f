"""`rtdetr-deploy`: TensorRT engines of what was trained, and what they score.

On top of the engine: it reads ONNX files that `rtdetr export` has written, and compares what it
makes of them with the checkpoint, by the same images, the same pre- and postprocessing.
"""
