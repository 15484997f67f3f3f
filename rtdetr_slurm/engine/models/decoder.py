"""Query selection, the transformer decoder, and the prediction heads."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdetr_slurm.engine.models.attention import DeformableAttention, SelfAttention
from rtdetr_slurm.engine.models.denoising import DenoisingQueries, denoising_queries
from rtdetr_slurm.engine.models.layers import MLP, ConvNorm, inverse_sigmoid
from rtdetr_slurm.engine.models.positions import Shapes, anchors
from rtdetr_slurm.engine.models.types import Outputs, PaddedTargets
from rtdetr_slurm.errors import RequestError

NUM_HEADS = 8
NUM_POINTS = 4
FFN_DIM = 1024
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
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

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

        Every layer starts from the detached boxes of the one before. In training the boxes that the
        loss sees are computed from the boxes before with their gradient, so that a layer's loss also
        trains the box head before it ("look forward twice", Zhang et al. 2023, arXiv:2203.03605).
        """
        depth = len(self.layers) if self.training else self.eval_idx + 1
        start = box_logits.sigmoid()
        previous: Tensor | None = None
        logits, boxes = [], []
        for index in range(depth):
            x = self.layers[index](x, query_pos_head(start), start, maps, allowed)
            delta = bbox_heads[index](x)
            refined = (delta + inverse_sigmoid(start)).sigmoid()
            if self.training or index == depth - 1:
                logits.append(score_heads[index](x))
                twice = self.training and previous is not None
                boxes.append((delta + inverse_sigmoid(previous)).sigmoid() if twice else refined)
            previous, start = refined, refined.detach()
        return torch.stack(logits), torch.stack(boxes)


class Decoder(nn.Module):
    """Selects the most promising cells of the encoder's maps as queries and decodes them.

    Args:
        in_channels: width of the encoder's maps.
        dim: width of the queries and of the projected maps.
        num_levels: number of maps.
        num_classes: C.
        num_queries: Q.
        num_layers: decoder layers.
        eval_idx: the layer whose predictions eval mode returns; -1 is the last.
        dn_number: denoising budget per image; 0 switches denoising off.
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
        self.enc_output = nn.Sequential(
            OrderedDict(proj=nn.Linear(dim, dim), norm=nn.LayerNorm(dim))
        )
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
            nn.init.zeros_(bbox_head.layers[-1].weight)
            nn.init.zeros_(bbox_head.layers[-1].bias)
        nn.init.xavier_uniform_(self.enc_output.proj.weight)
        for layer in self.query_pos_head.layers:
            nn.init.xavier_uniform_(layer.weight)
        for proj in self.input_proj:
            nn.init.xavier_uniform_(proj.conv.weight)

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
        """Top-Q cells by their best class score: content [B, Q, D], boxes and class logits.

        The box head runs on the selected cells only; it is the same for every cell.
        """
        shapes: Shapes = tuple((m.shape[-2], m.shape[-1]) for m in maps)
        cells = sum(height * width for height, width in shapes)
        if cells < self.num_queries:
            raise RequestError(
                f"model.num_queries is {self.num_queries}, but the feature maps {list(shapes)} of "
                f"this image size have only {cells} cells; use larger images or fewer queries"
            )
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        # Boxes stay in float32 at least, also where autocast makes the tokens half precision.
        box_dtype = torch.promote_types(tokens.dtype, torch.float32)
        anchor_logits, valid = anchors(shapes, box_dtype, tokens.device)
        memory = self.enc_output(tokens * valid)
        scores = self.enc_score_head(memory)
        index = scores.amax(-1).topk(self.num_queries, dim=1).indices[..., None]
        content = memory.gather(1, index.expand(-1, -1, memory.shape[-1]))
        enc_logits = scores.gather(1, index.expand(-1, -1, self.num_classes))
        anchor = anchor_logits.expand(len(tokens), -1, -1).gather(1, index.expand(-1, -1, 4))
        return content, self.enc_bbox_head(content) + anchor, enc_logits

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
            split = [denoising.content.shape[1], enc_logits.shape[1]]
            outputs["dn_logits"], logits = logits.split(split, dim=2)
            outputs["dn_boxes"], boxes = boxes.split(split, dim=2)
            outputs["dn_groups"] = denoising.groups
        outputs["pred_logits"], outputs["pred_boxes"] = logits[-1], boxes[-1]
        outputs["set_logits"] = torch.cat([logits, enc_logits[None]])
        outputs["set_boxes"] = torch.cat([boxes, enc_box_logits.sigmoid()[None]])
        return outputs
