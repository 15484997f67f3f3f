"""What the tests of deployment share."""

from __future__ import annotations

from rtdetr_slurm.deploy.record import EngineRecord, Profile

RECORD = EngineRecord(
    version="1.0",
    engine_sha256="a" * 64,
    onnx="rtdetr.engine.onnx",
    onnx_sha256="b" * 64,
    source_onnx="/runs/export/rtdetr.onnx",
    source_onnx_sha256="c" * 64,
    checkpoint="model_epoch_009.pth",
    checkpoint_sha256="d" * 64,
    epoch=9,
    runtime="tensorrt",
    runtime_version="10.13.3.9",
    compute_capability="8.9",
    gpu="NVIDIA L4",
    precision="INT8",
    int8_share=0.75,
    higher_precision={"decoder.class_head.0": "fp16"},
    height=640,
    width=480,
    profile=Profile(1, 4, 8),
    num_queries=300,
    num_classes=3,
    classes={"0": "face", "2": "person"},
    thresholds={"face": 0.5},
    num_select=100,
    build_log="rtdetr.engine.log",
    build_log_sha256="e" * 64,
    claim="run/gen_trt_engine",
)
