"""A state dict of ours with the names of every published layout; written from their module
trees, not from our rules."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]


def official_v1(own: State) -> State:
    rules = [
        (r"(encoder\.input_proj\.\d)\.conv\.", r"\1.0."),
        (r"(encoder\.input_proj\.\d)\.norm\.", r"\1.1."),
        (r"decoder\.enc_output\.proj", "decoder.enc_output.0"),
        (r"decoder\.enc_output\.norm", "decoder.enc_output.1"),
    ]
    return renamed(own, rules)


def official_v2(own: State) -> State:
    extra = {
        "decoder.anchors": torch.zeros(1, 8400, 4),
        "decoder.valid_mask": torch.zeros(1, 8400, 1),
    }
    for layer in range(3):
        name = f"decoder.decoder.layers.{layer}.cross_attn.num_points_scale"
        extra[name] = torch.full((12,), 0.25)
    return own | extra


def tao(own: State) -> State:
    return {f"model.model.{name}": value for name, value in official_v1(own).items()}


def hugging_face(own: State) -> State:
    """The names of transformers 5; written from its module tree, not from our rules."""
    state = {}
    for name, value in own.items():
        if ".in_proj_" in name:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                state[name.replace(".in_proj_", f".{part}_proj.")] = piece
        else:
            state[name] = value
    rules = [
        (r"^backbone\.conv1\.conv1_1", "backbone.model.embedder.embedder.0"),
        (r"^backbone\.conv1\.conv1_2", "backbone.model.embedder.embedder.1"),
        (r"^backbone\.conv1\.conv1_3", "backbone.model.embedder.embedder.2"),
        (
            r"^backbone\.res_layers\.(\d)\.blocks\.(\d+)\.short\.conv\.(conv|norm)",
            r"backbone.model.encoder.stages.\1.layers.\2.shortcut.1.\3",
        ),
        (
            r"^backbone\.res_layers\.(\d)\.blocks\.(\d+)\.short\.(conv|norm)",
            r"backbone.model.encoder.stages.\1.layers.\2.shortcut.\3",
        ),
        (r"^backbone\.res_layers\.(\d)\.blocks", r"backbone.model.encoder.stages.\1.layers"),
        (r"\.branch2a\.", ".layer.0."),
        (r"\.branch2b\.", ".layer.1."),
        (r"\.branch2c\.", ".layer.2."),
        (r"^(backbone.*)\.conv\.weight$", r"\1.convolution.weight"),
        (r"^(backbone.*)\.norm\.(\w+)$", r"\1.normalization.\2"),
        (r"^(encoder|decoder)\.input_proj\.(\d)\.conv", r"\1_input_proj.\2.0"),
        (r"^(encoder|decoder)\.input_proj\.(\d)\.norm", r"\1_input_proj.\2.1"),
        (r"^encoder\.encoder\.(\d)\.layers", r"encoder.aifi.\1.layers"),
        (r"^decoder\.decoder\.layers", "decoder.layers"),
        (r"^(encoder\.aifi.*)\.norm2", r"\1.final_layer_norm"),
        (r"^(encoder\.aifi.*|decoder\.layers.*)\.norm1", r"\1.self_attn_layer_norm"),
        (r"^(decoder\.layers.*)\.norm2", r"\1.encoder_attn_layer_norm"),
        (r"^(decoder\.layers.*)\.norm3", r"\1.final_layer_norm"),
        (r"\.cross_attn\.", ".encoder_attn."),
        (r"\.linear([12])\.", r".mlp.fc\1."),
        (r"self_attn\.out_proj", "self_attn.o_proj"),
        (r"^decoder\.enc_output\.proj", "enc_output.0"),
        (r"^decoder\.enc_output\.norm", "enc_output.1"),
        (r"^decoder\.(denoising_class_embed|enc_score_head|enc_bbox_head)", r"\1"),
        (r"^decoder\.dec_score_head", "decoder.class_embed"),
        (r"^decoder\.dec_bbox_head", "decoder.bbox_embed"),
    ]
    return {f"model.{name}": value for name, value in renamed(state, rules).items()}


def hugging_face_hub(own: State) -> State:
    """The older names, in the files on the hub, with the second version's extra tensors."""
    rules = [
        (r"\.o_proj\.", ".out_proj."),
        (r"\.mlp\.fc", ".fc"),
        (r"\.aifi\.", ".encoder."),
    ]
    state = renamed(hugging_face(own), rules)
    for layer in range(3):
        state[f"model.decoder.layers.{layer}.encoder_attn.n_points_scale"] = torch.full((12,), 0.25)
        name = f"class_embed.{layer}.weight"
        state[name] = own[f"decoder.dec_score_head.{layer}.weight"]
    return state


def renamed(state: State, rules: list[tuple[str, str]]) -> State:
    result = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


LAYOUTS: dict[str, tuple[Callable[[State], State], str]] = {
    "own": (dict, "this engine's"),
    "official v1": (official_v1, "official v1"),
    "official v2": (official_v2, "official v2"),
    "TAO": (tao, "official v1"),
    "transformers": (hugging_face, "Hugging Face"),
    "hub": (hugging_face_hub, "Hugging Face"),
}
