"""RT-DETR: backbone, hybrid encoder, decoder (Zhao et al. 2023, arXiv:2304.08069)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from rtdetr_slurm.engine.models.backbone import Backbone, build_backbone
from rtdetr_slurm.engine.models.decoder import Decoder
from rtdetr_slurm.engine.models.fuse import fused_copy
from rtdetr_slurm.engine.models.hybrid_encoder import HybridEncoder
from rtdetr_slurm.engine.models.types import Outputs, PaddedTargets
from rtdetr_slurm.vision.samples import Target

if TYPE_CHECKING:
    from rtdetr_slurm.spec.model import ModelConfig


class RTDETR(nn.Module):
    """The detector. Images are RGB in 0..1 without further normalisation, of any size whose sides
    are multiples of 32."""

    def __init__(self, backbone: Backbone, encoder: HybridEncoder, decoder: Decoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor, targets: list[Target] | None = None) -> Outputs:
        """Detect objects.

        Args:
            images: float32 [B, 3, H, W].
            targets: one per image; training mode with targets adds denoising queries.

        Returns:
            `pred_logits` [B, Q, C] and `pred_boxes` [B, Q, 4] (cxcywh in 0..1) of layer eval_idx;
            in training mode of the last layer, with what the criterion needs beside them.
        """
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"image sides must be multiples of 32, got {height}x{width}")
        padded = None if targets is None else PaddedTargets.from_list(targets)
        outputs: Outputs = self.decoder(self.encoder(self.backbone(images)), padded)
        return outputs

    def fuse(self) -> RTDETR:
        """A copy for inference: batch norms folded into convolutions, RepVGG blocks merged."""
        return fused_copy(self)


def build_model(
    cfg: ModelConfig,
    num_classes: int,
    *,
    freeze_norm: bool = False,
    freeze_stem: bool = False,
    activation_checkpoint: bool = False,
) -> RTDETR:
    """Build the detector that the spec's `model` section describes, randomly initialised.

    Args:
        cfg: the section.
        num_classes: number of class indices, at least the largest one + 1.
        freeze_norm: the backbone's batch norms become constants.
        freeze_stem: so do the backbone's layers before its first stage.
        activation_checkpoint: recompute the backbone's stages in the backward pass.

    The section must keep the spec's own rules, which `load_spec` checks.
    """
    backbone = build_backbone(
        cfg.backbone,
        cfg.return_interm_indices,
        train=cfg.train_backbone,
        freeze_norm=freeze_norm,
        freeze_stem=freeze_stem,
        activation_checkpoint=activation_checkpoint,
    )
    encoder_dim = cfg.feat_channels[0]
    encoder = HybridEncoder(
        backbone.channels,
        dim=encoder_dim,
        use_encoder_idx=cfg.use_encoder_idx,
        enc_layers=cfg.enc_layers,
        num_heads=cfg.nheads,
        ffn_dim=cfg.dim_feedforward,
        dropout=cfg.dropout_ratio,
        enc_act=cfg.enc_act,
        temperature=cfg.pe_temperature,
        expansion=cfg.expansion,
        depth_mult=cfg.depth_mult,
        act=cfg.act,
    )
    decoder = Decoder(
        cfg.feat_channels,
        dim=cfg.hidden_dim,
        num_classes=num_classes,
        num_queries=cfg.num_queries,
        num_layers=cfg.dec_layers,
        eval_idx=cfg.eval_idx,
        dn_number=cfg.dn_number,
    )
    return RTDETR(backbone, encoder, decoder)
