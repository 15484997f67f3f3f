"""Quantized detectors: how a library's decision becomes tensors, and what it costs.

A library (torchao, modelopt) decides on numbers; what it has decided is all in codes and scales,
which plain PyTorch computes with here. A quantized checkpoint therefore needs neither.
"""
