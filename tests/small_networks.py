"""Small networks of the common families with random weights, as backbones; nothing is downloaded."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from headstart.backbones import Architecture, Backbone
from headstart.backbones.tokens import Tokenizer
from headstart.core.preprocessing import ImageTransform, TextTransform

__all__ = ["IMAGE_FAMILIES", "small_image_backbone", "small_text_backbone"]

# family: timm's name, its arguments, pixels a side, a stage in the middle
IMAGE_FAMILIES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "resnet": ("resnet18", {"channels": [8, 16, 24, 32]}, 32, "layer2"),
    "bottleneck": ("test_resnet", {}, 48, "layer2"),
    "vgg": ("vgg", {}, 32, "features.2"),
    "mobilenet": ("mobilenetv2_035", {}, 32, "blocks.3"),
    "efficientnet": ("test_efficientnet", {}, 48, "blocks.2"),
    "convnext": ("convnext_atto", {}, 64, "stages.2"),
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "depth": 3, "embed_dim": 48, "num_heads": 3}, 32, "blocks.1"),
}
_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}


def _random_normalisation(network: nn.Module) -> None:
    """Give normalisation layers statistics and weights that matter."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)


def small_image_backbone(family: str, seed: int = 0) -> tuple[Backbone, str]:
    """Return a backbone of a family, and the name of a stage in its middle."""
    import timm
    from timm.models.vgg import VGG

    name, arguments, size, stage = IMAGE_FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "vgg":
            cfg: Any = [8, "M", 12, "M", 16, 16, "M"]
            network: nn.Module = VGG(cfg, num_classes=0, mlp_ratio=0.01)  # type: ignore[no-untyped-call]
        else:
            network = timm.create_model(name, num_classes=0, **arguments)
        _random_normalisation(network)
    network.eval()
    with torch.no_grad():
        width = int(network(torch.zeros(1, 3, size, size)).shape[1])
    architecture = Architecture("timm", name, {**arguments, "seed": seed})
    return Backbone(architecture, network, ImageTransform(size, size), name=f"small-{family}", width=width), stage


def small_text_backbone(seed: int = 0, max_tokens: int = 48) -> Backbone:
    """Return a BERT of three layers; its words are w1 to w49."""
    import transformers

    from headstart.backbones.transformers_models import TextEncoder

    words = {"[UNK]": 0, **{f"w{at}": at for at in range(1, 50)}}
    content = json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = transformers.AutoModel.from_config(transformers.AutoConfig.for_model("bert", **_BERT))
    tokenizer = Tokenizer(content)
    return Backbone(
        Architecture("transformers", "bert", {"config": _BERT, "seed": seed}),
        TextEncoder(encoder, "mean"),
        TextTransform(max_tokens, tokenizer_digest=tokenizer.digest),
        name="small-bert",
        width=16,
        tokenizer=tokenizer,
    )
