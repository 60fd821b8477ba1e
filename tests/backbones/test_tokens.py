"""Tokenising and batching of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from headstart.backbones.tokens import Tokenizer
from headstart.core.errors import BackboneError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "sat", "on", "the", "mat"]


def content(special: bool = True) -> str:
    engine = Engine(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        engine.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    engine.enable_padding(length=16)  # as packaged tokenizers do
    engine.enable_truncation(8)
    text: str = engine.to_str()
    return text


def test_numbers_are_those_of_the_words_without_padding() -> None:
    tokenizer = Tokenizer(content())
    assert tokenizer.encode(["the cat sat", "dog", ""], 16) == [[2, 9, 5, 7, 3], [2, 6, 3], [2, 3]]


def test_texts_are_cut_with_their_special_tokens_kept() -> None:
    assert Tokenizer(content()).encode(["the cat sat on the mat"], 4) == [[2, 9, 5, 3]]
    assert Tokenizer(content()).encode(["the cat sat on the mat"], 16) == [[2, 9, 5, 7, 8, 9, 10, 3]]


def test_no_row_is_empty() -> None:
    assert Tokenizer(content(special=False), pad_id=1).encode(["", "cat"], 4) == [[1], [5]]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), max_size=5))
def test_a_batch_is_padded_to_its_longest_row(token_lists: list[list[int]]) -> None:
    input_ids, mask = Tokenizer(content(), pad_id=7).collate(token_lists)
    longest = max((len(row) for row in token_lists), default=0)
    expected = np.full((len(token_lists), longest), 7)
    for row, tokens in enumerate(token_lists):
        expected[row, : len(tokens)] = tokens
    assert np.array_equal(input_ids.numpy(), expected)
    assert mask.sum(1).tolist() == [len(tokens) for tokens in token_lists]
    assert input_ids.dtype == mask.dtype == torch.int64


def test_saving_keeps_the_digest_whatever_was_encoded_before(tmp_path: Path) -> None:
    tokenizer = Tokenizer(content(), pad_id=0)
    tokenizer.encode(["cat"], 2)
    tokenizer.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert again.digest == tokenizer.digest != Tokenizer(content(), pad_id=1).digest
    assert again.encode(["the cat"], 9) == tokenizer.encode(["the cat"], 9)
    assert again.vocabulary_size == len(WORDS)


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="tokenizer file cannot be read"):
        Tokenizer("{}")
    with pytest.raises(BackboneError, match=r"no readable tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
