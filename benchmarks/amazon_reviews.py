"""Amazon reviews, 5,000 counts: the column without adaptation, and what aligners of sparse and of reduced rows add.

    python benchmarks/amazon_reviews.py

Twelve ordered pairs of books, dvd, electronics and kitchen: 2,000 labelled source reviews, the target's test reviews to answer
for (3,586 to 5,945), its 2,000 training reviews without labels to adapt to. A linear support vector machine on log(1 + count);
two columns stand for its C: by folds of the source (honest), and the best of the same values on the target's test labels
(unreachable). Reduced rows: 200 directions of a truncated SVD of both domains. Published columns for the original features:
Ganin et al., JMLR 2016, table 1; NN and SVM are quoted from memory, as the data's own notes say.
Needs the shared data (HEADSTART_SHARED). One thread.
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from headstart.alignment import CORAL, AdaptedClassifier, DiscriminatorRatio, LinearOT, SubspaceAlignment
from headstart.core.errors import HeadstartError
from record import ROOT, store_result

DATA = (
    Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")) / "data" / "text_amazon_dann" / "amazon_dann.npz"
)
RESULTS = ROOT / "benchmarks" / "results" / "amazon_reviews.json"
DOMAINS = ("books", "dvd", "electronics", "kitchen")
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)
PUBLISHED = {
    "NN": (0.790, 0.747, 0.778, 0.720, 0.732, 0.778, 0.709, 0.733, 0.854, 0.708, 0.739, 0.841),
    "SVM": (0.799, 0.748, 0.769, 0.743, 0.748, 0.746, 0.705, 0.726, 0.847, 0.707, 0.736, 0.842),
    "DANN": (0.784, 0.733, 0.779, 0.723, 0.754, 0.783, 0.713, 0.738, 0.854, 0.709, 0.740, 0.843),
}


def rows(stored: Any, domain: str, part: str) -> tuple[Any, NDArray[Any]]:
    """Return log(1 + count) as a sparse matrix, and the labels."""
    place = f"{domain}_{part}"
    counts = np.log1p(stored[f"{place}_data"].astype(np.float32))
    indices, pointers = stored[f"{place}_indices"].astype(np.int32), stored[f"{place}_indptr"]
    matrix = sparse.csr_matrix((counts, indices, pointers), shape=(len(pointers) - 1, 5000))
    return matrix, stored[f"{place}_labels"].astype(np.int64)


def machine(penalty: float) -> LinearSVC:
    return LinearSVC(C=penalty, max_iter=5000, random_state=0)


def pair(stored: Any, source: str, target: str) -> dict[str, float]:
    """Return every column's accuracy for one pair."""
    learn, labels = rows(stored, source, "train")
    unlabelled, _ = rows(stored, target, "train")
    test, truth = rows(stored, target, "test")
    found: dict[str, float] = {}
    search = GridSearchCV(machine(1.0), {"C": list(PENALTIES)}, cv=5).fit(learn, labels)
    found["SVM, C by source folds"] = float(search.score(test, truth))
    each = [float(machine(penalty).fit(learn, labels).score(test, truth)) for penalty in PENALTIES]
    found["SVM, best C on test (unreachable)"] = max(each)
    chosen = machine(search.best_params_["C"])
    try:
        weighted = AdaptedClassifier(DiscriminatorRatio(), chosen).fit(learn, labels, unlabelled)
        found["discriminator-ratio"] = float(weighted.score(test, truth))
    except HeadstartError as error:
        print(f"{source}>{target}: {error}")
        found["discriminator-ratio"] = found["SVM, C by source folds"]
    reduce = TruncatedSVD(200, random_state=0).fit(sparse.vstack([learn, unlabelled]))
    small = [normalize(reduce.transform(part)) for part in (learn, unlabelled, test)]
    inner = GridSearchCV(machine(1.0), {"C": [0.1, 0.3, 1.0, 3.0, 10.0]}, cv=5).fit(small[0], labels)
    found["reduced, source only"] = float(inner.score(small[2], truth))
    for name, aligner in (("coral", CORAL()), ("linear-ot", LinearOT()), ("subspace-alignment", SubspaceAlignment())):
        adapted = AdaptedClassifier(aligner, machine(inner.best_params_["C"])).fit(small[0], labels, small[1])
        found[f"reduced, {name}"] = float(adapted.score(small[2], truth))
    return found


def main() -> None:
    """Run the twelve pairs and print each column's mean beside the published ones."""
    started = time.process_time()
    table: dict[str, dict[str, float]] = {}
    with np.load(DATA) as stored, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for source, target in itertools.permutations(DOMAINS, 2):
            table[f"{source}>{target}"] = pair(stored, source, target)
            print(
                f"{source}>{target}",
                {name: round(100 * value, 1) for name, value in table[f"{source}>{target}"].items()},
                flush=True,
            )
    columns = {name: [line[name] for line in table.values()] for name in next(iter(table.values()))}
    means = {name: float(np.mean(values)) for name, values in columns.items()}
    source_only = {
        "reduced": np.array(columns["reduced, source only"]),
        "": np.array(columns["SVM, C by source folds"]),
    }
    for name, values in columns.items():
        against = source_only["reduced" if name.startswith("reduced") else ""]
        gains = np.array(values) - against
        print(
            f"{name:36s} mean {100 * means[name]:.1f}  gain {100 * gains.mean():+.1f}  better on {(gains > 0).sum()} of 12"
        )
    for name, published in PUBLISHED.items():
        print(f"{'published ' + name:36s} mean {100 * np.mean(published):.1f}")
    store_result(
        RESULTS,
        "twelve_pairs",
        {"pairs": table, "means": means, "published": PUBLISHED, "cpu_seconds": time.process_time() - started},
    )


if __name__ == "__main__":
    main()
