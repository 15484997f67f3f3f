"""Query selection, the transformer decoder, and the prediction heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetr_slurm.engine.models.attention import DeformableAttention, SelfAttention
from rtdetr_slurm.engine.models.denoising import DenoisingQueries, denoising_queries
from rtdetr_slurm.engine.models.functions import written_out
from rtdetr_slurm.engine.models.layers import (
    MLP,
    ConvNorm,
    fixed_sizes,
    project_map,
)
from rtdetr_slurm.engine.models.positions import Shapes, anchors
from rtdetr_slurm.engine.models.types import Outputs, PaddedTargets
from rtdetr_slurm.errors import RequestError

NUM_HEADS = 8
NUM_POINTS = 4
FFN_DIM = 1024
LIMIT = -math.log(1e-5)
"""Of a box's logits, before a layer refines them. The published code has probabilities between the
layers, whose inverse sigmoid has this limit."""
PRIOR = 0.01
"""Score that a freshly initialised class head gives to everything."""


class DecoderLayer(nn.Module):
    """Post-norm: self-attention, deformable attention into the maps, feed-forward."""

    def __init__(self, dim: int, num_levels: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, NUM_HEADS)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = DeformableAttention(dim, NUM_HEADS, num_levels, NUM_POINTS)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, FFN_DIM)
        self.linear2 = nn.Linear(FFN_DIM, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, position: Tensor, boxes: Tensor, maps: list[Tensor], allowed: Tensor | None
    ) -> Tensor:
        x = self.norm1(x + self.self_attn(x, position, allowed))
        x = self.norm2(x + self.cross_attn(x + position, boxes, maps))
        x = x + self.linear2(F.relu(self.linear1(x)))
        if x.dtype == torch.float16:  # the sum can leave the range of float16 in deep models
            limit = torch.finfo(torch.float16).max
            x = x.clamp(-limit, limit)
        out: Tensor = self.norm3(x)
        return out


class TransformerDecoder(nn.Module):
    """The stack of decoder layers, each refining the boxes of the one before."""

    def __init__(self, dim: int, num_layers: int, num_levels: int, eval_idx: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(dim, num_levels) for _ in range(num_layers))
        self.eval_idx = eval_idx if eval_idx >= 0 else num_layers + eval_idx

    def forward(
        self,
        x: Tensor,
        box_logits: Tensor,
        maps: list[Tensor],
        allowed: Tensor | None,
        query_pos_head: nn.Module,
        score_heads: nn.ModuleList,
        bbox_heads: nn.ModuleList,
    ) -> tuple[Tensor, Tensor]:
        """Refine queries x [B, N, D] that start at box_logits [B, N, 4].

        Returns:
            Logits [L, B, N, C] and boxes [L, B, N, 4] of every layer in training, of layer eval_idx
            alone (L = 1) in eval mode, where the layers after it do not run.

        Every layer starts from the detached boxes of the one before. In training, the boxes that
        the loss sees are computed from the boxes before with their gradient: a layer's loss also
        trains the box head before it ("look forward twice", Zhang et al. 2023, arXiv:2203.03605).
        """
        depth = len(self.layers) if self.training else self.eval_idx + 1
        start = box_logits
        previous: Tensor | None = None
        logits, boxes = [], []
        for index in range(depth):
            at = start.sigmoid()
            x = self.layers[index](x, query_pos_head(at), at, maps, allowed)
            delta = bbox_heads[index](x)
            refined = delta + start.clamp(-LIMIT, LIMIT)
            if self.training or index == depth - 1:
                logits.append(score_heads[index](x))
                seen = refined
                if self.training and previous is not None:
                    seen = delta + previous.clamp(-LIMIT, LIMIT)
                boxes.append(seen)
            previous, start = refined, refined.detach()
        return torch.stack(logits), torch.stack(boxes).sigmoid()


class CellContent(nn.Module):
    """Turns the features of a map's cells into the content of queries."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        out: Tensor = self.norm(self.proj(tokens))
        return out

    def of_map(self, feature: Tensor) -> Tensor:
        """[B, D, H, W] to [B, H * W, D]."""
        out: Tensor = self.norm(_tokens(project_map(feature, self.proj)))
        return out


class Decoder(nn.Module):
    """Selects the most promising cells of the encoder's maps as queries and decodes them.

    Args:
        in_channels: widths of the encoder's maps, one per level.
        dim: width of the queries and of the projected maps.
        num_classes: C.
        num_queries: Q.
        num_layers: decoder layers.
        eval_idx: the layer whose predictions eval mode returns; -1 is the last.
        dn_number: denoised copies of targets per image, at most; 0 switches denoising off.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        dim: int,
        num_classes: int,
        num_queries: int,
        num_layers: int,
        eval_idx: int,
        dn_number: int,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_queries, self.dn_number = num_classes, num_queries, dn_number
        self.input_proj = nn.ModuleList(ConvNorm(channels, dim, 1) for channels in in_channels)
        self.decoder = TransformerDecoder(dim, num_layers, len(in_channels), eval_idx)
        if dn_number > 0:
            self.denoising_class_embed = nn.Embedding(num_classes + 1, dim, num_classes)
        self.query_pos_head = MLP(4, 2 * dim, dim, 2)
        self.enc_output = CellContent(dim)
        self.enc_score_head = nn.Linear(dim, num_classes)
        self.enc_bbox_head = MLP(dim, dim, 4, 3)
        self.dec_score_head = nn.ModuleList(nn.Linear(dim, num_classes) for _ in range(num_layers))
        self.dec_bbox_head = nn.ModuleList(MLP(dim, dim, 4, 3) for _ in range(num_layers))
        self._init_weights()

    def _init_weights(self) -> None:
        bias = -math.log((1 - PRIOR) / PRIOR)
        for score_head in (self.enc_score_head, *self.dec_score_head):
            nn.init.constant_(score_head.bias, bias)
        for bbox_head in (self.enc_bbox_head, *self.dec_bbox_head):
            for parameter in bbox_head.layers[-1].parameters():
                nn.init.zeros_(parameter)
        for module in (self.enc_output, self.query_pos_head):
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, features: list[Tensor], targets: PaddedTargets | None) -> Outputs:
        """Encoder maps, fine to coarse, to predictions; `targets` in training only."""
        maps = [proj(x) for proj, x in zip(self.input_proj, features, strict=True)]
        content, box_logits, enc_logits = self._select(maps)
        queries, starts = content.detach(), box_logits.detach()
        denoising = self._denoise(targets) if self.training else None
        if denoising is not None:
            queries = torch.cat([denoising.content, queries], dim=1)
            starts = torch.cat([denoising.box_logits, starts], dim=1)
        logits, boxes = self.decoder(
            queries,
            starts,
            maps,
            denoising.allowed if denoising else None,
            self.query_pos_head,
            self.dec_score_head,
            self.dec_bbox_head,
        )
        if not self.training:
            return Outputs(pred_logits=logits[-1], pred_boxes=boxes[-1])
        return self._training_outputs(logits, boxes, enc_logits, box_logits, denoising)

    def _select(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The top Q cells by their best class score.

        Returns:
            Content [B, Q, D], box logits [B, Q, 4] and class logits [B, Q, C] of the cells.
        """
        shapes: Shapes = tuple((height, width) for _, height, width in map(fixed_sizes, maps))
        cells = sum(height * width for height, width in shapes)
        if cells < self.num_queries:
            raise RequestError(
                f"model.num_queries is {self.num_queries}, but the feature maps {list(shapes)} of "
                f"this image size have only {cells} cells; use larger images or fewer queries"
            )
        tokens = torch.cat([_tokens(m) for m in maps], dim=1)
        # Boxes stay in float32 at least, also where autocast makes the tokens half precision.
        box_dtype = torch.promote_types(tokens.dtype, torch.float32)
        anchor_logits, valid = anchors(shapes, box_dtype, tokens.device)
        index = self._best_cells(maps, valid)
        selected = _rows(tokens, index)
        content = self.enc_output(selected * valid[0][index])
        boxes = self.enc_bbox_head(content) + anchor_logits[0][index]
        return content, boxes, self.enc_score_head(content)

    @torch.no_grad()
    def _best_cells(self, maps: list[Tensor], valid: Tensor) -> Tensor:
        """int64 [B, Q]: the cells with the best class scores, best first.

        A cell whose anchor is not valid scores as one whose features are zero. Only the selected
        cells get a gradient, so all cells are scored without a graph, and the few selected ones are
        projected once more with it.
        """
        device = valid.device.type
        # Autocast must not keep the weights that it casts here: older PyTorch would use them again
        # below, without their gradient.
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device), cache_enabled=False):
            scores = torch.cat([self._best_scores(m) for m in maps], dim=1)
            nothing = self._best_scores(maps[0].new_zeros(1, fixed_sizes(maps[0])[0], 1, 1))
        scores = torch.where(valid[..., 0], scores, nothing)
        return scores.topk(self.num_queries, dim=1).indices

    def _best_scores(self, feature: Tensor) -> Tensor:
        """[B, D, H, W] to the logit of the best class per cell, [B, H * W]."""
        logits: Tensor = self.enc_score_head(self.enc_output.of_map(feature))
        return logits.amax(-1)

    def _denoise(self, targets: PaddedTargets | None) -> DenoisingQueries | None:
        if targets is None or self.dn_number == 0:
            return None
        return denoising_queries(
            targets,
            self.dn_number,
            self.num_classes,
            self.num_queries,
            self.denoising_class_embed,
        )

    @staticmethod
    def _training_outputs(
        logits: Tensor,
        boxes: Tensor,
        enc_logits: Tensor,
        enc_box_logits: Tensor,
        denoising: DenoisingQueries | None,
    ) -> Outputs:
        outputs = Outputs()
        if denoising is not None:
            number = denoising.content.shape[1]
            outputs["dn_logits"], logits = logits[:, :, :number], logits[:, :, number:]
            outputs["dn_boxes"], boxes = boxes[:, :, :number], boxes[:, :, number:]
            outputs["dn_groups"] = denoising.groups
            if denoising.slots is not None:
                outputs["dn_slots"] = denoising.slots
        outputs["pred_logits"], outputs["pred_boxes"] = logits[-1], boxes[-1]
        outputs["set_logits"] = torch.cat([logits, enc_logits[None]])
        outputs["set_boxes"] = torch.cat([boxes, enc_box_logits.sigmoid()[None]])
        return outputs


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    """The rows [B, Q, D] of tokens [B, N, D] at index [B, Q]."""
    if not written_out():
        return tokens.gather(1, index[..., None].repeat(1, 1, fixed_sizes(tokens)[-1]))
    # The same, but autograd does not keep all tokens for it.
    batch = torch.arange(len(index), device=index.device)[:, None]
    return tokens[batch, index]


def _tokens(feature: Tensor) -> Tensor:
    """[B, D, H, W] to [B, H * W, D]."""
    dim, height, width = fixed_sizes(feature)
    return feature.reshape(-1, dim, height * width).transpose(1, 2)
