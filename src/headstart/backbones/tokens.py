"""Text to token numbers, with the backbone's own tokenizer, kept as one ``tokenizer.json``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core.digests import digest_bytes
from headstart.core.errors import BackboneError, MissingExtra
from headstart.core.files import write_text

__all__ = ["TOKENIZER_FILE", "Tokenizer"]

TOKENIZER_FILE = "tokenizer.json"


class Tokenizer:
    """A tokenizer without padding and without a cut of its own; both are decided by the caller.

    Parameters
    ----------
    content : str
        The text of a ``tokenizer.json``.
    pad_id : int
        Token number that fills the shorter texts of a batch; it is always masked.
    """

    def __init__(self, content: str, pad_id: int = 0) -> None:
        try:
            from tokenizers import Tokenizer as Engine
        except ImportError as error:
            raise MissingExtra("open_backbone", "tokenizers", "text") from error
        try:
            self._engine: Any = Engine.from_str(content)
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise BackboneError(f"open_backbone: the tokenizer file cannot be read ({error}).") from error
        self._engine.no_padding()
        self._engine.no_truncation()
        self.pad_id = pad_id
        self.content = content

    @classmethod
    def from_folder(cls, folder: Path, pad_id: int = 0) -> Tokenizer:
        """Return the tokenizer of a folder that holds ``tokenizer.json``."""
        path = folder / TOKENIZER_FILE
        try:
            return cls(path.read_text(encoding="utf-8"), pad_id)
        except (OSError, UnicodeDecodeError) as error:
            raise BackboneError(f"open_backbone: {folder} holds no readable {TOKENIZER_FILE} ({error}).") from error

    @cached_property
    def digest(self) -> str:
        """Digest of the tokenizer and its padding number."""
        return digest_bytes(f"{self.pad_id}\n{self.content}".encode())

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, added ones included."""
        size: int = self._engine.get_vocab_size()
        return size

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` into a folder."""
        write_text(folder / TOKENIZER_FILE, self.content)

    def encode(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Return the token numbers of each text: at least one, at most ``max_tokens``, special tokens included."""
        self._engine.enable_truncation(max_tokens)
        encodings = self._engine.encode_batch_fast(list(texts))
        return [list(encoding.ids) or [self.pad_id] for encoding in encodings]

    def collate(self, token_lists: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return token numbers padded to the longest row, and the mask that is 1 on real tokens; both int64."""
        longest = max((len(tokens) for tokens in token_lists), default=0)
        input_ids = torch.full((len(token_lists), longest), self.pad_id, dtype=torch.int64)
        attention_mask = torch.zeros((len(token_lists), longest), dtype=torch.int64)
        for row, tokens in enumerate(token_lists):
            input_ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            attention_mask[row, : len(tokens)] = 1
        return input_ids, attention_mask
