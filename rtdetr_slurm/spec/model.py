"""`model`: the detector's architecture, matching costs and losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import (
    DISTILL,
    EVERY,
    MODEL,
    TRAIN,
    TRAINED,
    TRAINING,
    OptionalText,
    Section,
    field,
)

# TAO's published names, then its registry's names that are not published, then our own.
Backbone = Literal[
    "resnet_18", "resnet_34", "resnet_50", "resnet_101",
    "convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "convnext_xlarge",
    "fan_tiny", "fan_small", "fan_base", "fan_large",
    "efficientvit_b0", "efficientvit_b1", "efficientvit_b2", "efficientvit_b3",
    "efficientvit_l0", "efficientvit_l1", "efficientvit_l2", "efficientvit_l3",
    "convnextv2_atto", "convnextv2_femto", "convnextv2_pico", "convnextv2_nano",
    "convnextv2_tiny", "convnextv2_small", "convnextv2_base", "convnextv2_large",
    "convnextv2_huge",
    "fan_tiny_8_p4_hybrid", "fan_small_12_p4_hybrid", "fan_base_12_p4_hybrid",
    "fan_large_12_p4_hybrid",
    "edgenext_x_small", "edgenext_small", "edgenext_base",
    "edgenext_xx_small_bn_hs", "edgenext_x_small_bn_hs", "edgenext_small_bn_hs",
    "resnet_18_vd", "resnet_34_vd", "resnet_50_vd", "resnet_101_vd",
]  # fmt: skip
FoundationModel = Literal[
    "radio_v2-b", "radio_v2-l", "radio_v2-h", "radio_v3-b", "radio_v3-l", "radio_v3-h"
]
Activation = Literal["relu", "gelu", "silu", "leaky_relu"]
Positive = Annotated[int, Field(ge=1)]
Level = Annotated[int, Field(ge=0, le=3)]


class FrozenFmConfig(Section):
    """A frozen foundation model beside the backbone."""

    enabled: bool = field(
        False, description="Add the features of a frozen RADIO foundation model to the detector's."
    )
    backbone: FoundationModel = field("radio_v2-l", description="Which RADIO model to add.")
    checkpoint: OptionalText = field(
        "", path="read", holds="weights", description="File with the RADIO model's weights."
    )


class ModelConfig(Section):
    """Architecture, matching and losses."""

    backbone: Backbone = field(
        "resnet_50",
        honoured_by=MODEL,
        carried=EVERY,
        description="Network that turns the image into feature maps. resnet_* are the plain "
        "ResNets (as in TAO and timm); resnet_*_vd are the variants of the RT-DETR paper. fan_tiny "
        "is fan_tiny_8_p4_hybrid, and so on. convnext_* have three levels.",
    )
    pretrained_backbone_path: OptionalText = field(
        "",
        path="read",
        holds="weights",
        inferred=Infer.PTM_IF_NO_RESUME_MODEL,
        inferred_in=TRAIN,
        carried=TRAIN,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Weights for the backbone alone (.pth or .safetensors), loaded before training "
        "starts. Not read when train.pretrained_model_path or a resumed checkpoint gives all "
        "weights.",
    )
    train_backbone: bool = field(
        True,
        used_by=TRAINING,
        honoured_by=TRAINING,
        no_effect_in=TRAINED,
        description="Train the backbone too; false freezes all of its weights and statistics.",
    )
    return_interm_indices: list[Level] = field(
        [1, 2, 3],
        honoured_by=MODEL,
        carried=EVERY,
        automl="disabled",
        description="Backbone stages whose feature maps the encoder reads, consecutive and fine to "
        "coarse; stage i has stride 4·2^i. As many as num_feature_levels.",
    )
    num_feature_levels: int = field(
        3,
        ge=1,
        le=4,
        no_effect_in=EVERY,
        carried=EVERY,
        description="Number of feature levels in encoder and decoder; as many as "
        "return_interm_indices lists.",
    )
    feat_strides: list[Positive] = field(
        [8, 16, 32],
        no_effect_in=EVERY,
        carried=EVERY,
        automl="disabled",
        description="Stride of each level in pixels; must be those of return_interm_indices.",
    )
    feat_channels: list[Positive] = field(
        [256, 256, 256],
        honoured_by=MODEL,
        carried=EVERY,
        automl="disabled",
        description="Width of the encoder's maps per level, all equal (384 in the paper's R101). "
        "hidden_dim is the decoder's width.",
    )
    hidden_dim: int = field(
        256,
        ge=8,
        honoured_by=MODEL,
        carried=EVERY,
        automl="disabled",
        description="Width of the decoder; a multiple of 8.",
    )
    nheads: int = field(
        8,
        ge=1,
        honoured_by=MODEL,
        carried=EVERY,
        description="Attention heads in the encoder's transformer. Must divide feat_channels. The "
        "decoder always has 8, as in TAO.",
    )
    enc_layers: int = field(
        1,
        ge=1,
        le=12,
        honoured_by=MODEL,
        carried=EVERY,
        automl="default_parameter",
        description="Transformer layers on each level of use_encoder_idx.",
    )
    use_encoder_idx: list[Level] = field(
        [2],
        honoured_by=MODEL,
        carried=EVERY,
        automl="disabled",
        description="Levels (0 is the finest) that pass through the encoder's transformer. An "
        "empty list leaves it out.",
    )
    dim_feedforward: int = field(
        1024,
        ge=1,
        honoured_by=MODEL,
        carried=EVERY,
        description="Hidden width of the feed-forward layers in the encoder's transformer; the "
        "decoder's is always 1024, as in TAO.",
    )
    enc_act: Activation = field(
        "gelu",
        honoured_by=MODEL,
        carried=EVERY,
        description="Activation in the encoder's transformer.",
    )
    act: Activation = field(
        "silu",
        honoured_by=MODEL,
        carried=EVERY,
        description="Activation of the encoder's convolutions.",
    )
    depth_mult: int = field(
        1,
        ge=1,
        honoured_by=MODEL,
        carried=EVERY,
        description="Multiplies the three RepVGG blocks of each fusion layer.",
    )
    expansion: float = field(
        1.0,
        ge=0.0,
        math_cond="> 0",
        honoured_by=MODEL,
        carried=EVERY,
        description="Hidden width of the fusion layers as a share of the encoder's width (0.5 in "
        "the paper's R18 and R34).",
    )
    dropout_ratio: float = field(
        0.0,
        ge=0.0,
        le=1.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        no_effect_in=TRAINED,
        description="Dropout probability in the encoder's transformer while training.",
    )
    pe_temperature: int = field(
        10000,
        ge=1,
        honoured_by=MODEL,
        carried=EVERY,
        description="Temperature of the sine-cosine position code.",
    )
    dec_layers: int = field(
        6,
        ge=1,
        le=12,
        honoured_by=MODEL,
        carried=EVERY,
        automl="default_parameter",
        description="Decoder layers (3 in the paper's R18, 4 in R34).",
    )
    eval_idx: int = field(
        -1,
        ge=-1,
        honoured_by=MODEL,
        carried=EVERY,
        description="Decoder layer whose result counts outside training, from 0; later layers are "
        "then left out. -1 is the last.",
    )
    num_queries: int = field(
        300,
        ge=1,
        honoured_by=MODEL,
        carried=EVERY,
        automl="default_parameter",
        parent_param=True,
        description="Object queries: the most objects the detector can find in one image.",
    )
    num_select: int = field(
        300,
        ge=1,
        le=1000,
        honoured_by=MODEL,
        carried=EVERY,
        automl="default_parameter",
        depends_on="model.num_queries",
        description="Detections kept per image: the best (query, class) pairs by score. At most "
        "num_queries × dataset.num_classes.",
    )
    precise_msda: bool = field(
        False,
        no_effect_in=EVERY,
        description="Ask for deformable attention in plain PyTorch, which repeats exactly; here "
        "it always is.",
    )
    dn_number: int = field(
        100,
        ge=0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        no_effect_in=TRAINED,
        description="Denoised copies of boxes per image while training, at most, each a pair of "
        "queries: whole groups of all boxes, or, where an image has more, so many of them; 0 turns "
        "denoising off.",
    )
    class_cost: float = field(
        2.0,
        ge=0.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Weight of the class score when queries are matched with objects.",
    )
    bbox_cost: float = field(
        5.0,
        ge=0.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Weight of the L1 box distance in the matching.",
    )
    giou_cost: float = field(
        2.0,
        ge=0.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Weight of the generalised IoU in the matching.",
    )
    loss_types: Annotated[list[Literal["vfl", "boxes"]], Field(min_length=1)] = field(
        ["vfl", "boxes"],
        used_by=TRAINING,
        honoured_by=TRAINING,
        automl="disabled",
        description="Losses to train with: vfl (varifocal, on the classes) and boxes (L1 and "
        "generalised IoU).",
    )
    vfl_loss_coef: float = field(
        1.0,
        ge=0.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Weight of the varifocal loss.",
    )
    bbox_loss_coef: float = field(
        5.0,
        ge=0.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Weight of the L1 box loss.",
    )
    giou_loss_coef: float = field(
        2.0,
        ge=0.0,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Weight of the generalised IoU loss.",
    )
    alpha: float = field(
        0.75,
        math_cond="> 0.0",
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Varifocal loss: weight of the negatives.",
    )
    gamma: float = field(
        2.0,
        math_cond="> 0.0",
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Varifocal loss: focusing exponent of the negatives.",
    )
    aux_loss: bool = field(
        True,
        used_by=TRAINING,
        honoured_by=TRAINING,
        description="Apply the losses after every decoder layer; false applies them after the last "
        "one alone (and to the encoder's proposals either way). TAO accepts this field and ignores "
        "it.",
    )
    distillation_loss_coef: float = field(
        1.0,
        ge=0.0,
        used_by=DISTILL,
        honoured_by=DISTILL,
        description="Weight of all distillation terms together. TAO accepts this field and ignores "
        "it.",
    )
    load_teacher_enc_dec: bool = field(
        False,
        used_by=DISTILL,
        honoured_by=DISTILL,
        description="Start the student's encoder and decoder from the teacher's weights where the "
        "shapes agree.",
    )
    frozen_fm: FrozenFmConfig = field(
        FrozenFmConfig,
        automl="disabled",
        switch="enabled",
        description="A frozen foundation model whose features are fused with the detector's.",
    )
    clip_max_norm: float = field(
        0.1,
        idle="train.clip_grad_norm is what clips the gradient",
        description="Left over in TAO's schema and without effect; see train.clip_grad_norm.",
    )
    backbone_names: list[str] = field(
        ["backbone.0"],
        automl="disabled",
        idle="they name modules of another of TAO's detectors",
        description="Left over in TAO's schema from another detector; without effect.",
    )
    linear_proj_names: list[str] = field(
        ["reference_points", "sampling_offsets"],
        automl="disabled",
        idle="they name modules of another of TAO's detectors",
        description="Left over in TAO's schema from another detector; without effect.",
    )
