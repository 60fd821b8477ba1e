"""Word vectors and a gated recurrent unit: the text encoder that came before transformers, small enough for any laptop.

    h_t = GRU(h_{t-1}, E[w_t]) from the left, and another from the right;  features = mean, max or last of [left_t; right_t]

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014 (arXiv:1406.1078); vectors as in
Pennington et al., "GloVe", EMNLP 2014.
Use it where a text encoder has to be tiny, or for a language that has word vectors and no encoder. Its knowledge sits in the
vectors alone: the recurrent unit begins with random weights and must be trained.
It ignores how words are spelled: a word without a vector is ``[UNK]``, the mean of all vectors.
It is cut in one place: ``embedding`` before, the recurrent unit after.
Shapes: n texts, t words, d numbers in a word vector, h numbers in a hidden state.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from headstart.backbones.architecture import Architecture, build_network
from headstart.backbones.backbone import Backbone
from headstart.backbones.cost import count_multiply_adds
from headstart.backbones.tokens import Tokenizer
from headstart.backbones.weights import read_safetensors
from headstart.core.errors import BackboneError, ConfigError, MissingExtra
from headstart.core.preprocessing import TextTransform

__all__ = [
    "EmbeddingCut",
    "RecurrentEncoder",
    "RecurrentPooling",
    "WordEmbedding",
    "build_recurrent",
    "read_word_vectors",
    "recurrent_backbone",
]

RecurrentPool = Literal["mean", "max", "last"]
PAD, UNKNOWN = "[PAD]", "[UNK]"
_FRESH_RANGE = 0.25  # of a vector without knowledge, as in Kim, EMNLP 2014, so that its variance is that of real ones
_WORDS = r"n't\b|'(?:s|d|m|ll|re|ve)\b|\w+?(?=n't\b)|\w+|[^\w\s]"


class WordEmbedding(nn.Module):
    """Token numbers to word vectors: ``(input_ids, attention_mask)`` to ``(vectors_ntd, attention_mask)``."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        with torch.no_grad():
            nn.init.uniform_(self.words.weight, -_FRESH_RANGE, _FRESH_RANGE)
            self.words.weight[0] = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors and the mask as it came."""
        return self.words(input_ids), attention_mask


class RecurrentPooling(nn.Module):
    """Word vectors to one vector a text: ``(vectors_ntd, attention_mask)`` to features (n, h), or (n, 2h) from both sides.

    The mask is 1 on a text's words, which come first, and 0 on the padding after them; padding changes nothing.
    """

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, pooling: RecurrentPool) -> None:
        super().__init__()
        self.unit = nn.GRU(width, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.pooling = pooling

    def forward(self, vectors_ntd: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the features."""
        lengths_n = attention_mask.sum(1).clamp(min=1)
        packed = pack_padded_sequence(vectors_ntd, lengths_n.cpu(), batch_first=True, enforce_sorted=False)
        states, last = self.unit(packed)
        if self.pooling == "last":  # the left reader's state after the last word, the right reader's after the first
            sides = 2 if self.unit.bidirectional else 1
            return torch.cat(list(last[-sides:]), dim=1)
        states_nth, _ = pad_packed_sequence(states, batch_first=True, total_length=vectors_ntd.shape[1])
        if self.pooling == "mean":
            return states_nth.sum(1) / lengths_n[:, None].to(states_nth.dtype)  # states of padding are 0
        places_t = torch.arange(states_nth.shape[1], device=states_nth.device)
        padding_nt = places_t[None, :] >= lengths_n[:, None]
        return states_nth.masked_fill(padding_nt[:, :, None], -math.inf).amax(1)


class RecurrentEncoder(nn.Module):
    """`WordEmbedding`, then `RecurrentPooling`: ``(input_ids, attention_mask)`` to features.

    Parameters
    ----------
    vocabulary : int
        Number of tokens, padding (0) and unknown (1) included.
    width : int
        Numbers in a word vector.
    hidden : int
        Numbers in a hidden state; from both sides there are twice as many features.
    layers : int
        Recurrent units on top of each other.
    bidirectional : bool
        Read from both sides.
    pooling : {"mean", "max", "last"}
        How the states of all words become one vector: mean or maximum over words, or the state after the last word read.

    Examples
    --------
    >>> encoder = RecurrentEncoder(vocabulary=10, width=4, hidden=3)
    >>> encoder(torch.tensor([[5, 6, 0]]), torch.tensor([[1, 1, 0]])).shape
    torch.Size([1, 6])
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        hidden: int = 128,
        layers: int = 1,
        bidirectional: bool = True,
        pooling: RecurrentPool = "max",
    ) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary, width)
        self.gru = RecurrentPooling(width, hidden, layers, bidirectional, pooling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return features (n, h) or (n, 2h)."""
        features: Tensor = self.gru(*self.embedding(input_ids, attention_mask))
        return features


class EmbeddingCut:
    """The one place where a `RecurrentEncoder` is cut: after its word vectors, which take no multiply-adds.

    Parameters
    ----------
    network : nn.Module
        A `RecurrentEncoder`; both halves are its own parts.
    inputs : tuple of Tensor
        Example rows.

    Attributes
    ----------
    points : list
        This cut alone, named ``"embedding"``.
    """

    name = "embedding"

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(network, RecurrentEncoder)
        self.network = network
        self.shape = (-1, network.embedding.words.embedding_dim)
        self.multiply_adds = count_multiply_adds(network.embedding, inputs)
        self.points = [self]

    def cut(self, point: EmbeddingCut) -> tuple[nn.Module, nn.Module]:
        """Return the two halves; their parameters are the network's own."""
        return _Part(self.network, "embedding"), _Part(self.network, "gru")

    def segments(self, points: Sequence[EmbeddingCut]) -> list[nn.Module]:
        """Return the network cut at this place, or whole."""
        return list(self.cut(points[0])) if points else [self.network]

    def blocks(self) -> list[EmbeddingCut]:
        """Return the end of the first of the two blocks."""
        return list(self.points)


class _Part(nn.Module):
    """A part under its own name, so that its parameters are called what the network calls them."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, network.get_submodule(name))

    def forward(self, *inputs: Tensor) -> Any:
        return self.get_submodule(self.name)(*inputs)


def build_recurrent(architecture: Architecture) -> nn.Module:
    """Return the network with fresh random weights."""
    return RecurrentEncoder(**architecture.arguments)


def read_word_vectors(path: str | Path, max_words: int | None = None) -> tuple[list[str], NDArray[np.float32]]:
    """Return words, most frequent first as in the file, and their vectors of shape (words, d).

    Parameters
    ----------
    path : str or Path
        A folder with ``vocab.txt`` (a word a line) and one ``.safetensors`` file with one matrix, a row a word; or a text file
        with a word and its numbers a line, as GloVe and (with a line of two counts before) word2vec and fastText write them.
    max_words : int, optional
        Read only so many.

    Raises
    ------
    BackboneError
        If the files are missing or damaged, or numbers are missing or not finite. A word that comes again keeps its first vector.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        words, vectors_wd = _read_folder(path, max_words)
    elif path.is_file():
        words, vectors_wd = _read_text(path, max_words)
    else:
        raise BackboneError(f"read_word_vectors: there is no {path}; give a folder with vocab.txt, or a text file.")
    if not len(words) or not vectors_wd.shape[1]:
        raise BackboneError(f"read_word_vectors: {path} holds no word vectors.")
    finite_w = np.isfinite(vectors_wd).all(1)
    if not finite_w.all():
        row = int(np.argmin(finite_w))
        raise BackboneError(
            f"read_word_vectors: the vector of {words[row]!r} in {path} (line {row + 1}) is not finite; restore the file."
        )
    first: dict[str, int] = {}
    for row, word in enumerate(words):
        first.setdefault(word, row)
    return list(first), vectors_wd[list(first.values())]


def _read_folder(folder: Path, max_words: int | None) -> tuple[list[str], NDArray[np.float32]]:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1 or not (folder / "vocab.txt").is_file():
        held = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
        raise BackboneError(
            f"read_word_vectors: {folder} must hold vocab.txt and one .safetensors file; it holds {held}."
        )
    try:
        text = (folder / "vocab.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BackboneError(f"read_word_vectors: {folder / 'vocab.txt'} cannot be read ({error}).") from error
    words = text.removesuffix("\n").split("\n")
    tensors, _ = read_safetensors(files[0])
    matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    if len(matrices) != 1 or len(matrices[0]) != len(words):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
        raise BackboneError(
            f"read_word_vectors: {files[0]} must hold one matrix with {len(words)} rows, one for each line of vocab.txt; "
            f"it holds {shapes}."
        )
    return words[:max_words], matrices[0][:max_words].float().numpy()


def _read_text(path: Path, max_words: int | None) -> tuple[list[str], NDArray[np.float32]]:
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    width = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                    continue  # the counts of words and numbers
                width = width or len(parts) - 1
                if max_words is not None and len(words) >= max_words:
                    break
                if len(parts) <= width or width < 1:
                    raise ValueError(f"line {number} has {len(parts) - 1} numbers, not {width}")
                words.append(" ".join(parts[: len(parts) - width]))  # some files have words with a space inside
                rows.append(np.array(parts[len(parts) - width :], np.float32))
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"read_word_vectors: {path} is not a text file of word vectors, a word and its numbers a line ({error})."
        ) from error
    return words, np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _word_tokenizer(words: list[str]) -> Tokenizer:
    """Return a tokenizer whose token numbers are padding 0, unknown 1, then the words.

    Texts are split at spaces and around punctuation, with ``n't`` and ``'s`` words of their own as in GloVe; they are lowercased
    unless some word has a capital. Where ``n't`` has no vector but ``not`` has one, that is read: a lost negation costs most.
    """
    try:
        from tokenizers import Regex, models, normalizers, pre_tokenizers
        from tokenizers import Tokenizer as Engine
    except ImportError as error:
        raise MissingExtra("recurrent_backbone", "tokenizers", "text") from error
    known = set(words)
    steps = [normalizers.NFC(), normalizers.Replace("’", "'")]
    if all(word == word.lower() for word in words):
        steps.append(normalizers.Lowercase())
    if "n't" not in known and "not" in known:
        steps.append(normalizers.Replace(Regex(r"n't\b"), " not"))
    numbers = {token: number for number, token in enumerate([PAD, UNKNOWN, *words])}
    engine = Engine(models.WordLevel(numbers, unk_token=UNKNOWN))
    engine.normalizer = normalizers.Sequence(steps)
    engine.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    return Tokenizer(json.dumps(json.loads(engine.to_str()), ensure_ascii=False, separators=(",", ":")), pad_id=0)


def recurrent_backbone(
    vectors: str | Path,
    *,
    hidden: int = 128,
    layers: int = 1,
    bidirectional: bool = True,
    pooling: RecurrentPool = "max",
    max_tokens: int = 512,
    max_words: int | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Backbone:
    """Return a text encoder that knows words and has yet to learn how to read them.

    Parameters
    ----------
    vectors : str or Path
        Word vectors, as `read_word_vectors` takes them.
    hidden, layers, bidirectional, pooling
        The recurrent unit; see `RecurrentEncoder`.
    max_tokens : int
        Longer texts are cut.
    max_words : int, optional
        Take only the first words of the file, which are the most frequent.
    seed : int
        Weights the recurrent unit begins with.
    name : str, optional
        ``"gru:"`` and the path when left out.

    Returns
    -------
    Backbone
        Of modality text, with ``hidden`` features, or twice as many from both sides.

    Raises
    ------
    BackboneError
        If the vectors cannot be read.
    ConfigError
        If a number is below 1, or there is no such pooling.
    MissingExtra
        If the library tokenizers is not installed.
    """
    for argument, value in (("hidden", hidden), ("layers", layers), ("max_tokens", max_tokens)):
        if value < 1:
            raise ConfigError(f"recurrent_backbone: {argument} is at least 1; got {value}.")
    if pooling not in get_args(RecurrentPool):
        raise ConfigError(
            f"recurrent_backbone: pooling is one of {', '.join(get_args(RecurrentPool))}; got {pooling!r}."
        )
    words, vectors_wd = read_word_vectors(vectors, max_words)
    tokenizer = _word_tokenizer(words)
    arguments: dict[str, Any] = {
        "vocabulary": len(words) + 2,
        "width": int(vectors_wd.shape[1]),
        "hidden": hidden,
        "layers": layers,
        "bidirectional": bidirectional,
        "pooling": pooling,
    }
    architecture = Architecture("recurrent", "gru", arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture)
    table = network.get_parameter("embedding.words.weight")
    with torch.no_grad():
        table[1] = torch.from_numpy(vectors_wd.mean(0, dtype=np.float64).astype(np.float32))
        table[2:] = torch.from_numpy(vectors_wd)
    return Backbone(
        architecture,
        network,
        TextTransform(max_tokens, pooling, tokenizer.digest),
        name=name or f"gru:{vectors}",
        width=hidden * (2 if bidirectional else 1),
        origin=f"word vectors of {vectors}; recurrent unit random, seed {seed}",
        tokenizer=tokenizer,
    )
