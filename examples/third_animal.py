"""A recogniser of cats and dogs learns a third animal from a few pictures: L_source + lambda * D(F_source, F_new).

    python examples/third_animal.py cats_vs_dogs/ pacs/photo/ --animal horse --few 5

The first folder holds labelled cats and dogs. The second holds pictures from elsewhere, in class folders: the new
animal, of which ``--few`` are labelled, and those it shares with the first; all its other pictures are looked at
without labels. A network on frozen features minimises the task's loss on every labelled picture plus ``lambda`` times
a distance between the features of both collections. ``lambda`` is chosen by cross-validation among the labelled
pictures of the new collection; 0, which leaves the distance out, is among the choices. Pictures of both collections
that nobody has seen say how well it went, beside lambda = 0, the network from random features, and the majority.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import headstart
from headstart.backbones import Backbone, open_backbone
from headstart.catalog import read_objectives
from headstart.core.progress import Progress
from headstart.features import extract_features
from headstart.methods import AdaptedNetwork

LAMBDAS = (0.0, 0.1, 1.0, 10.0)


@dataclass
class Pictures:
    """Features and class names of some pictures."""

    features_nd: np.ndarray
    names: np.ndarray

    def take(self, places: np.ndarray) -> Pictures:
        """Return some of them."""
        return Pictures(self.features_nd[places], self.names[places])


def read(folder: Path, backbone: Backbone, classes: list[str], most: int | None, seed: int) -> Pictures:
    """Return features of the pictures of some classes, in a drawn order; at most so many of each."""
    rows = headstart.open_dataset(folder)
    assert rows.task is not None and rows.targets is not None
    names = np.array(rows.task.classes)[rows.targets]
    order = np.random.default_rng(seed).permutation(len(rows))
    kept = [place for name in classes for place in order[names[order] == name][:most]]
    chosen = np.random.default_rng(seed).permutation(kept)
    features = extract_features(rows.subset(chosen).unlabelled(), backbone, progress=Progress(quiet=True))
    return Pictures(features.values_nd, names[chosen][features.kept])


def learn(weight: float, labelled: Pictures, unlabelled: np.ndarray, distance: str, seed: int) -> AdaptedNetwork:
    """Return the network for one value of lambda; 0 leaves the distance out."""
    words = "ce" if weight == 0 else f"ce + {weight:g}*domain-distance(distance={distance})"
    return AdaptedNetwork(read_objectives(words), num_steps=200, seed=seed).fit(
        labelled.features_nd, labelled.names, unlabelled
    )


def choose(known: Pictures, few: Pictures, unlabelled: np.ndarray, distance: str, seed: int) -> dict[float, float]:
    """Return for every lambda the share of the few labelled pictures that is named rightly when it is left out."""
    folds = np.arange(len(few.names)) % min(4, len(few.names))
    right: dict[float, float] = {}
    for weight in LAMBDAS:
        answers = np.zeros(len(few.names), bool)
        for fold in np.unique(folds):
            others = few.take(np.flatnonzero(folds != fold))
            mine = few.take(np.flatnonzero(folds == fold))
            labelled = Pictures(
                np.concatenate([known.features_nd, others.features_nd]), np.concatenate([known.names, others.names])
            )
            seen = np.concatenate([unlabelled, mine.features_nd])
            model = learn(weight, labelled, seen, distance, seed)
            answers[folds == fold] = model.predict(mine.features_nd) == mine.names
        right[weight] = float(answers.mean())
    return right


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Choose lambda, learn, and say how well every way names pictures nobody has seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("known", type=Path, help="folder of labelled cats and dogs")
    parser.add_argument("new", type=Path, help="folder with the new animal, and animals it shares with the first")
    parser.add_argument("--animal", default="horse")
    parser.add_argument("--few", type=int, default=5, help="labelled pictures of each class of the new folder")
    parser.add_argument("--most", type=int, default=200, help="pictures of each class that are used")
    parser.add_argument("--distance", default="mk-mmd")
    parser.add_argument("--base-model", default="efficientnet-lite0")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    backbone = open_backbone(arguments.base_model)
    known_classes = sorted(headstart.open_dataset(arguments.known).task.classes)  # type: ignore[union-attr]
    here = set(headstart.open_dataset(arguments.new).task.classes)  # type: ignore[union-attr]
    new_classes = [arguments.animal, *(name for name in known_classes if name in here)]
    results: dict[str, Any] = {}
    scores: dict[float, float] = {}  # lambda is chosen once, with the pretrained features
    for title, body in (("pretrained", backbone), ("random features", backbone.with_random_weights(arguments.seed))):
        known = read(arguments.known, body, known_classes, arguments.most, arguments.seed)
        new = read(arguments.new, body, new_classes, arguments.most, arguments.seed)
        cut = int(0.75 * len(known.names))
        places = [np.flatnonzero(new.names == name) for name in new_classes]
        few = new.take(np.concatenate([part[: arguments.few] for part in places]))
        rest = np.concatenate([part[arguments.few :] for part in places])
        rest = np.random.default_rng(arguments.seed).permutation(rest)
        unlabelled, unseen = new.features_nd[rest[: len(rest) // 2]], new.take(rest[len(rest) // 2 :])
        learning, old = known.take(np.arange(cut)), known.take(np.arange(cut, len(known.names)))
        labelled = Pictures(
            np.concatenate([learning.features_nd, few.features_nd]), np.concatenate([learning.names, few.names])
        )
        scores = scores or choose(learning, few, unlabelled, arguments.distance, arguments.seed)
        best = max(scores, key=lambda weight: (scores[weight], -weight))
        for weight in dict.fromkeys((0.0, best)):
            model = learn(weight, labelled, unlabelled, arguments.distance, arguments.seed)
            name = f"{title}, lambda {weight:g}" + (" (chosen)" if weight == best else "")
            results[name] = {
                "new": float((model.predict(unseen.features_nd) == unseen.names).mean()),
                "known": float((model.predict(old.features_nd) == old.names).mean()),
                "folds": scores[weight] if body is backbone else None,
            }
    _, counts = np.unique(unseen.names, return_counts=True)
    results["majority"] = {"new": float(counts.max() / counts.sum()), "known": 0.5, "folds": None}
    print(
        f"{arguments.animal} beside {', '.join(known_classes)}: {len(unseen.names)} unseen pictures of the new folder"
    )
    print(f"{'':38s} new folder  known folder  folds of the few")
    for name, value in results.items():
        folds = "" if value["folds"] is None else f"{100 * value['folds']:.1f} %"
        print(f"{name:38s} {100 * value['new']:8.1f} %  {100 * value['known']:10.1f} %  {folds:>10s}")
    return results


if __name__ == "__main__":
    main()
