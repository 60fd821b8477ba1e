"""Encoders of transformers with small random weights, saved as the hub lays them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from headstart.backbones import Backbone

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *[f"w{index}" for index in range(36)]]
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {
    **SIZES,
    "vocab_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
HIERARCHY = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}
TEXT_KINDS: dict[str, dict[str, Any]] = {
    "bert": TEXT,
    "roberta": TEXT,
    "electra": {**TEXT, "embedding_size": 8},
    "mpnet": TEXT,
    "modernbert": {**TEXT, "cls_token_id": 2, "sep_token_id": 3, "local_attention": 4},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "vocab_size": 40, "pad_token_id": 0},
    "gpt2": {
        "n_embd": 16,
        "n_layer": 3,
        "n_head": 2,
        "vocab_size": 40,
        "n_positions": 32,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "llama": {**TEXT, "num_key_value_heads": 1},
}
IMAGE_KINDS: dict[str, dict[str, Any]] = {
    "vit": VISION,
    "dinov2": VISION,
    "deit": VISION,
    "clip_vision_model": VISION,
    "siglip_vision_model": VISION,
    "convnext": {**HIERARCHY, "image_size": 32},
    "resnet": {**HIERARCHY, "embedding_size": 8, "layer_type": "basic"},
}


def save_tokenizer(folder: Path) -> None:
    engine = Engine(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="[PAD]", unk_token="[UNK]", model_max_length=24
    ).save_pretrained(folder)


def make(folder: Path, kind: str, config: dict[str, Any], auto: str = "AutoModel", **preprocessor: Any) -> Any:
    """Save a small model as the hub lays it out and return it."""
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(transformers.AutoConfig.for_model(kind, **config)).eval()
    model.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    else:
        save_tokenizer(folder)
    return model


def inputs(backbone: Backbone) -> tuple[torch.Tensor, ...]:
    if backbone.modality == "text":
        return backbone.collate(backbone.tokenize(TEXTS))
    return (torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)),)
