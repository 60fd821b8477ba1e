"""The recurrent text encoder against a literal NumPy twin; its vectors, its words, its one cut, its way to disk and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from headstart.backbones import Backbone, build_backbone, open_backbone
from headstart.backbones.recurrent import RecurrentEncoder, read_word_vectors, recurrent_backbone
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.tasks import Task
from headstart.data import open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction
from headstart.model import load_model

WORDS = ["the", "not", ",", "film", "good", "do", "é"]


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A folder of seven words with four numbers each."""
    folder = tmp_path / "vectors"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    matrix_wd = np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float16)
    save_file({"embedding": matrix_wd}, folder / "vectors.safetensors")
    return folder


@pytest.fixture
def backbone(vectors: Path) -> Backbone:
    return recurrent_backbone(vectors, hidden=3)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-values)))


def _read(state: dict[str, NDArray[np.float64]], side: str, vectors_td: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cho et al. 2014, equations 5 to 8, word after word: r, z, n of PyTorch's order; states (t, h)."""
    w, u = state[f"weight_ih_l0{side}"], state[f"weight_hh_l0{side}"]
    b, c = state[f"bias_ih_l0{side}"], state[f"bias_hh_l0{side}"]
    size = u.shape[1]
    hidden, states = np.zeros(size), []
    for vector in vectors_td:
        gates, recurrent = w @ vector + b, u @ hidden + c
        reset = _sigmoid(gates[:size] + recurrent[:size])
        update = _sigmoid(gates[size : 2 * size] + recurrent[size : 2 * size])
        proposal = np.tanh(gates[2 * size :] + reset * recurrent[2 * size :])
        hidden = (1 - update) * proposal + update * hidden
        states.append(hidden)
    return np.array(states)


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_encoder_is_the_formula(pooling: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(9, 4, hidden=3, bidirectional=bidirectional, pooling=pooling).double()  # type: ignore[arg-type]
    ids_nt = torch.tensor([[2, 3, 4, 5, 8], [6, 7, 0, 0, 0], [1, 0, 0, 0, 0]])
    mask_nt = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    features = encoder(ids_nt, mask_nt).detach().numpy()
    state = {name: tensor.numpy() for name, tensor in encoder.gru.unit.state_dict().items()}
    table = encoder.embedding.words.weight.detach().numpy()
    for row, length in enumerate((5, 2, 1)):
        words_td = table[ids_nt[row, :length].numpy()]
        sides = [_read(state, "", words_td)]
        if bidirectional:
            sides.append(_read(state, "_reverse", words_td[::-1])[::-1])
        if pooling == "last":
            wanted = np.concatenate([side[end] for side, end in zip(sides, (-1, 0), strict=False)])
        else:
            states_th = np.concatenate(sides, axis=1)
            wanted = states_th.mean(0) if pooling == "mean" else states_th.max(0)
        np.testing.assert_allclose(features[row], wanted, atol=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_padding_and_company_change_nothing(vectors: Path, pooling: str) -> None:
    backbone = recurrent_backbone(vectors, hidden=3, pooling=pooling)  # type: ignore[arg-type]
    tokens = backbone.tokenize(["good film", "the film, the good, the not good film", ""])
    together = backbone.module(*backbone.collate(tokens))
    alone = torch.cat([backbone.module(*backbone.collate([row])) for row in tokens])
    ids, mask = backbone.collate(tokens)
    wider = backbone.module(torch.nn.functional.pad(ids, (0, 7)), torch.nn.functional.pad(mask, (0, 7)))
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together, wider, atol=1e-6, rtol=0)


def test_words_get_their_vectors_and_strangers_the_mean(backbone: Backbone, vectors: Path) -> None:
    words, vectors_wd = read_word_vectors(vectors)
    table = backbone.module.get_parameter("embedding.words.weight").detach().numpy()
    assert words == WORDS
    np.testing.assert_array_equal(table[2:], vectors_wd)
    np.testing.assert_allclose(table[1], vectors_wd.mean(0), rtol=1e-6)
    assert not table[0].any()
    assert backbone.tokenize(["The GOOD film, zebra", "e\u0301"]) == [[2, 6, 5, 4, 1], [8]]


def test_a_negation_without_a_vector_is_read_as_not(backbone: Backbone, tmp_path: Path) -> None:
    assert backbone.tokenize(["I don't", "do n't", "I don’t"]) == [[1, 7, 3], [7, 3], [1, 7, 3]]
    path = tmp_path / "own.txt"
    path.write_text("not 1 2\nn't 3 4\ndo 5 6\nDo 7 8\n", encoding="utf-8")
    own = recurrent_backbone(path, hidden=2)
    assert own.tokenize(["don't Don't not"]) == [
        [4, 3, 5, 3, 2]
    ]  # its own vector; and capitals count, as some word has one


def test_texts_are_cut_at_the_longest_length(vectors: Path) -> None:
    assert recurrent_backbone(vectors, max_tokens=2).tokenize(["the good film"]) == [[2, 6]]
    assert recurrent_backbone(vectors).transform.to_dict()["max_tokens"] == 512


@pytest.mark.parametrize(
    "content",
    ["the 1 2 3\n. . 4 5 6\nfilm 7 8 9\nthe 0 0 0\n", "3 3\nthe 1 2 3 \n. . 4 5 6 \nfilm 7 8 9 \nthe 0 0 0 \n"],
    ids=["glove", "word2vec"],
)
def test_text_files_of_vectors_are_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(content, encoding="utf-8")
    words, vectors_wd = read_word_vectors(path)
    assert words == ["the", ". .", "film"]  # a word with a space inside; one that comes again keeps its first vector
    assert vectors_wd.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert read_word_vectors(path, max_words=1)[0] == ["the"]


def test_the_cut_is_exact_and_shares_parameters(backbone: Backbone) -> None:
    assert [stage.name for stage in backbone.stages] == ["input", "embedding", "features"]
    assert backbone.stage("embedding").shape == (-1, 4)
    prefix, suffix = backbone.cut("embedding")
    rows = backbone.collate(backbone.tokenize(["good film", "the film, the good"]))
    assert torch.equal(suffix(*prefix(*rows)), backbone.module(*rows))
    assert {id(p) for p in prefix.parameters()} | {id(p) for p in suffix.parameters()} == {
        id(p) for p in backbone.module.parameters()
    }


def test_the_baseline_keeps_nothing_of_the_vectors(backbone: Backbone) -> None:
    fresh = backbone.with_random_weights(1)
    table, known = (item.module.get_parameter("embedding.words.weight") for item in (fresh, backbone))
    assert table.shape == known.shape
    assert table.abs().max() <= 0.25
    assert not table[0].any()
    assert abs(np.corrcoef(table[1:].detach().numpy().ravel(), known[1:].detach().numpy().ravel())[0, 1]) < 0.5
    assert fresh.weights_digest != backbone.weights_digest
    assert torch.equal(table, backbone.with_random_weights(1).module.get_parameter("embedding.words.weight"))
    assert fresh.tokenize(["good film"]) == backbone.tokenize(["good film"])


def test_padding_has_no_gradient(backbone: Backbone) -> None:
    backbone.module(*backbone.collate(backbone.tokenize(["good", "the good film"]))).sum().backward()
    gradient = backbone.module.get_parameter("embedding.words.weight").grad
    assert gradient is not None
    assert not gradient[0].any()
    assert gradient[6].any()


def test_saved_parts_make_the_same_backbone(backbone: Backbone, tmp_path: Path) -> None:
    backbone.save_tokenizer(tmp_path)
    again = build_backbone(backbone.spec(), backbone.state_dict(), tmp_path)
    rows = backbone.collate(backbone.tokenize(["good film", "é, don't"]))
    assert again.tokenize(["good film", "é, don't"]) == backbone.tokenize(["good film", "é, don't"])
    assert torch.equal(again.module(*rows), backbone.module(*rows))
    assert again.weights_digest == backbone.weights_digest
    assert again.stage("embedding").shape == (-1, 4)


def test_a_model_with_it_is_saved_and_read_back(backbone: Backbone, tmp_path: Path) -> None:
    texts = ["good film", "the good", "not good", "do not film"] * 3
    rows = open_dataset(texts, labels=["yes", "yes", "no", "no"] * 3)
    features = extract_features(rows, backbone, store=False, runtime="torch", threads=1)
    model = FeatureExtraction(head="ridge", memo=False).fit(
        backbone, features, np.asarray(rows.targets), Task("classification", ("no", "yes"))
    )
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model")
    first, second = (m.predict(texts, runtime="torch", store=False).scores for m in (model, again))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first.argmax(1), rows.targets)


def test_the_same_seed_gives_the_same_backbone(vectors: Path) -> None:
    digests = {recurrent_backbone(vectors, seed=seed).weights_digest for seed in (0, 0, 1)}
    assert len(digests) == 2


@pytest.mark.parametrize("argument", ["hidden", "layers", "max_tokens"])
def test_numbers_below_one_are_refused(vectors: Path, argument: str) -> None:
    with pytest.raises(ConfigError, match=f"{argument} is at least 1; got 0"):
        recurrent_backbone(vectors, **{argument: 0})  # type: ignore[arg-type]


def test_an_unknown_pooling_is_refused(vectors: Path) -> None:
    with pytest.raises(ConfigError, match="mean, max, last"):
        recurrent_backbone(vectors, pooling="median")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("the 1 2\nfilm 1\n", "line 2 has 1 numbers, not 2"),
        ("the 1 two\n", "not a text file"),
        ("", "holds no word vectors"),
        ("the 1 nan\n", "'the'.*line 1.*not finite"),
        ("the\nfilm\n", "not a text file"),
    ],
)
def test_damaged_text_files_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BackboneError, match=complaint):
        read_word_vectors(path)


def test_folders_that_do_not_fit_are_refused(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="there is no"):
        open_backbone(f"gru:{tmp_path / 'nowhere'}")
    (vectors / "vocab.txt").write_text("the\n", encoding="utf-8")
    with pytest.raises(BackboneError, match=r"one matrix with 1 rows.*embedding \(7, 4\)"):
        read_word_vectors(vectors)
    (vectors / "vocab.txt").unlink()
    with pytest.raises(BackboneError, match=r"must hold vocab\.txt.*holds vectors\.safetensors"):
        read_word_vectors(vectors)


def test_real_vectors_know_that_a_queen_is_a_female_king(shared_weights: Path) -> None:
    words, vectors_wd = read_word_vectors(shared_weights / "glove100d_20k")
    unit_wd = vectors_wd / np.linalg.norm(vectors_wd, axis=1, keepdims=True)
    king, man, woman = (unit_wd[words.index(word)] for word in ("king", "man", "woman"))
    nearest = [words[row] for row in np.argsort(-unit_wd @ (king - man + woman))[:4]]
    assert next(word for word in nearest if word not in {"king", "man", "woman"}) == "queen"
    backbone = open_backbone(f"gru:{shared_weights / 'glove100d_20k'}")
    assert (backbone.width, backbone.modality, backbone.module.get_submodule("embedding.words").num_embeddings) == (
        256,
        "text",
        20_002,
    )
