"""What the ladder expects of fine-tuning beside what fine-tuning brought, on the data sets of `fine_tuning.py`.

    python benchmarks/expected_gains.py

Needs the shared data (HEADSTART_SHARED, default ../shared) and benchmarks/results/fine_tuning.json. The expectation is that of
`fit`: the solved head's figure and its learning curve on training rows, by the rule in `headstart.workflow.expectation`.
Both are shown as shares of the error that the solved head leaves; a negative share is a loss.
"""

from __future__ import annotations

import json
from typing import Any

from fine_tuning import CHOSEN, RESULTS, split
from headstart.backbones import open_backbone
from headstart.core.progress import Progress
from headstart.data import open_dataset
from headstart.features import extract_features
from headstart.methods import FeatureExtraction
from headstart.workflow.curve import head_curve
from headstart.workflow.expectation import error_of, share_that_stays, tuning_gain
from record import ROOT, store_result

METRIC = "accuracy"


def compare(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return the expectation and the measured gain of one data set."""
    source, options = CHOSEN[name]()
    data = open_dataset(source, **{key: value for key, value in options.items() if key != "test"})
    training = data.subset(split(data, 0)[0])
    assert training.task is not None and training.targets is not None
    backbone, quiet = open_backbone(found["backbone"]), Progress(quiet=True)
    features = extract_features(training, backbone, progress=quiet)
    head = FeatureExtraction().fit(backbone, features, training.targets[features.kept], training.task).head
    points = head_curve(training, features, None, head, METRIC, seed=0, progress=quiet)
    value = found["accuracy"]["solved"]["value"]
    kind = "full" if "every stage" in found["reason"] else "partial"
    expected = tuning_gain(kind, METRIC, value, training.task, len(training), points)
    error = error_of(METRIC, value)
    gap = found["difference"]["fine-tuned - solved"]
    return {
        "kind": kind,
        "rows_a_class": len(training) / len(training.task.classes),
        "error": error,
        "stays": share_that_stays(METRIC, points),
        "expected": expected.gain,
        "brought": gap,
        "expected_share": expected.gain / error,
        "brought_share": {key: number / error for key, number in gap.items()},
    }


def main() -> None:
    """Print one line a data set, and keep the figures."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = {key: compare(key.split(" ")[0], found) for key, found in stored.items()}
    for key, line in lines.items():
        gap = line["brought_share"]
        print(
            f"{key:34s} {line['kind']:8s} {line['rows_a_class']:6.0f} rows a class, error {100 * line['error']:4.1f} points, "
            f"stays {line['stays']:.2f}: expected {100 * line['expected_share']:4.0f} % of it, brought "
            f"{100 * gap['value']:+4.0f} % ({100 * gap['low']:+.0f} to {100 * gap['high']:+.0f})"
        )
    store_result(ROOT / "benchmarks" / "results" / "expected_gains.json", "fine-tuning", lines)


if __name__ == "__main__":
    main()
