"""Aligners beside skada's on one small problem: how far the answers differ, and why.

    python benchmarks/skada_agreement.py [--only coral,tca]           in an environment that has skada beside headstart

90 source and 60 target rows of six features, three classes, the target moved, turned and stretched; source rows first, since
skada's TCA returns them so whatever the order (one job says what happens otherwise). Rows are centred and scaled once, so that
headstart's own scaling changes nothing, and every setting is translated. "gap" is the largest difference over the
largest value of ours. Where two programs solve one problem, the objective tells who is nearer to its least value.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from alignment_speed import MU
from headstart import alignment
from record import ROOT, store_result

RESULTS = ROOT / "benchmarks" / "results" / "skada_agreement.json"
Array = np.ndarray[Any, np.dtype[Any]]
Found = dict[str, Any]
NUM_SOURCE, NUM_TARGET, WIDTH = 90, 60, 6


class Problem:
    """The rows in both forms: mean 0 and root mean squared length 1, or every column of deviation 1."""

    def __init__(self) -> None:
        draws = np.random.default_rng(0)
        self.labels, self.truth = np.arange(NUM_SOURCE) % 3, np.arange(NUM_TARGET) % 3
        centres = 2.0 * draws.normal(size=(3, WIDTH))
        mixing = np.eye(WIDTH) + 0.3 * draws.normal(size=(WIDTH, WIDTH))
        source = centres[self.labels] + draws.normal(size=(NUM_SOURCE, WIDTH))
        target = (centres[self.truth] + draws.normal(size=(NUM_TARGET, WIDTH))) @ mixing + 0.7
        rows = np.concatenate([source, target])
        rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
        self.standard = rows[:NUM_SOURCE], rows[NUM_SOURCE:]
        rows = rows / np.sqrt(WIDTH)
        self.source, self.target = rows[:NUM_SOURCE], rows[NUM_SOURCE:]
        self.rows, self.domains = rows, np.repeat([1, -2], [NUM_SOURCE, NUM_TARGET])
        self.masked = np.concatenate([self.labels, np.full(NUM_TARGET, -1)])
        self.values = self.source @ np.arange(1.0, WIDTH + 1) + 0.3 * self.labels
        self.masked_values = np.concatenate([self.values, np.full(NUM_TARGET, np.nan)])


def gap(ours: Array, theirs: Array) -> float:
    """Return the largest difference over the largest value of ours."""
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def centred(rows: Array) -> Array:
    """Return rows around their mean."""
    return np.asarray(rows - rows.mean(axis=0))


def share(weights: Array) -> Array:
    """Return weights of mean 1."""
    return np.asarray(weights / weights.mean())


def moved(problem: Problem, adapter: Any) -> Array:
    """Return skada's source rows."""
    found = adapter.fit_transform(problem.rows, problem.masked, sample_domain=problem.domains)
    return np.asarray(found)[:NUM_SOURCE]


def weighed(problem: Problem, adapter: Any, rows: Array | None = None) -> Array:
    """Return skada's weights of source rows."""
    rows = problem.rows if rows is None else rows
    adapter.fit(rows, sample_domain=problem.domains)
    return np.asarray(adapter.compute_weights(rows, sample_domain=problem.domains))[:NUM_SOURCE]


def coral(problem: Problem) -> Found:
    from skada import CORALAdapter

    ours = alignment.CORAL(0.0).fit_transform(problem.source, None, problem.target)
    theirs = moved(problem, CORALAdapter(reg=0.0))
    ratio = np.sqrt((NUM_SOURCE - 1) / NUM_SOURCE * NUM_TARGET / (NUM_TARGET - 1))
    return {
        "gap": gap(centred(ours), centred(theirs)),
        "gap_with_covariances_over_n": gap(centred(ours) / ratio, centred(theirs)),
        "why": "they divide covariances by n and m, we by n - 1 and m - 1; they centre both domains, we move the source",
    }


def linear_ot(problem: Problem) -> Found:
    from skada import LinearOTMappingAdapter

    ours = alignment.LinearOT(0.0).fit_transform(problem.source, None, problem.target)
    theirs = moved(problem, LinearOTMappingAdapter(reg=1e-12))
    ratio = np.sqrt((NUM_SOURCE - 1) / NUM_SOURCE * NUM_TARGET / (NUM_TARGET - 1))
    return {
        "gap": gap(ours, theirs),
        "gap_with_covariances_over_n": gap(centred(ours) / ratio, centred(theirs)),
        "why": "they divide covariances by n and m",
    }


def subspace(problem: Problem) -> Found:
    from skada import SubspaceAlignmentAdapter

    aligner = alignment.SubspaceAlignment(3).fit(problem.source, None, problem.target)
    ours = aligner.transform(problem.rows, sample_domain=problem.domains)
    theirs = SubspaceAlignmentAdapter(n_components=3).fit_transform(problem.rows, sample_domain=problem.domains)
    products = [rows[:NUM_SOURCE] @ rows[NUM_SOURCE:].T for rows in (ours, theirs)]
    return {"gap": gap(*products), "why": "compared by inner products across the domains, which no sign changes"}


def tca(problem: Problem) -> Found:
    """Compare the kernel's images in the space spanned: criterion, and what their own problem solved rightly would give."""
    from skada import TransferComponentAnalysisAdapter

    num_rows = NUM_SOURCE + NUM_TARGET
    aligner = alignment.TCA(
        3, MU / (1 / NUM_SOURCE + 1 / NUM_TARGET), kernel="rbf", bandwidth=np.sqrt(WIDTH / 2), normalise_rows=False
    ).fit(problem.source, None, problem.target)
    adapter = TransferComponentAnalysisAdapter(n_components=3, mu=1 / MU).fit(
        problem.rows, sample_domain=problem.domains
    )
    kernel = adapter.K_
    apart = np.repeat([1 / NUM_SOURCE, -1 / NUM_TARGET], [NUM_SOURCE, NUM_TARGET])
    towards, spread = kernel @ apart, kernel @ (kernel - kernel.mean(axis=0))
    below = MU * np.eye(num_rows) + np.outer(towards, towards)
    right = linalg.eigh((spread + spread.T) / 2, below)[1][:, -3:]

    def criterion(vectors: Array) -> float:
        return float(np.trace(np.linalg.solve(vectors.T @ below @ vectors, vectors.T @ spread @ vectors)))

    def images(vectors: Array) -> Array:
        basis = np.linalg.qr(centred(kernel @ vectors))[0]
        return np.asarray(basis @ basis.T)

    ours, theirs = aligner.map_, adapter.eigvects_
    draws = np.random.default_rng(1)
    order = draws.permutation(num_rows)
    fresh = TransferComponentAnalysisAdapter(n_components=3, mu=1 / MU)
    mixed = fresh.fit_transform(problem.rows[order], sample_domain=problem.domains[order])
    straight = TransferComponentAnalysisAdapter(n_components=3, mu=1 / MU).fit_transform(
        problem.rows, sample_domain=problem.domains
    )
    return {
        "gap": gap(images(ours), images(theirs)),
        "gap_of_ours_to_the_symmetric_problem": gap(images(ours), images(right)),
        "criterion_ours": criterion(ours),
        "criterion_theirs": criterion(theirs),
        "their_gap_when_rows_come_mixed": gap(np.abs(straight[order]), np.abs(mixed)),
        "why": "they hand (I + KLK/mu)^-1 KHK, which is not symmetric, to a solver for symmetric matrices, and return mixed rows "
        "source first",
    }


def kmm(problem: Problem) -> Found:
    from skada import KMMReweightAdapter

    ours = alignment.KMM(ridge=0.0, min_effective_rows=1).fit(problem.source, None, problem.target)

    def kernel(rows: Array) -> Array:
        squares = np.square(problem.source[:, None] - rows[None]).sum(axis=2)
        return np.asarray(np.exp(-squares / 2))

    within, across = kernel(problem.source), NUM_SOURCE * kernel(problem.target).mean(axis=1)

    def objective(weights: Array) -> float:
        return float(weights @ (within @ weights / 2 - across))

    found: Found = {"objective_ours": float(ours.objective_)}
    for solver in ("frank-wolfe", "scipy"):
        theirs = weighed(problem, KMMReweightAdapter(gamma=0.5, solver=solver))
        found |= {
            f"gap_{solver}": gap(ours.weights_, share(theirs)),
            f"objective_{solver}": objective(theirs),
            f"mean_weight_{solver}": float(theirs.mean()),
        }
    found["gap"] = found["gap_frank-wolfe"]
    return found | {
        "why": "one quadratic problem, flat around its least value; their default solver stops above it; weights at mean 1"
    }


def kliep(problem: Problem) -> Found:
    from skada import KLIEPReweightAdapter

    # their centres are drawn with replacement from the target; we are given the same bandwidth and take every target row
    adapter = KLIEPReweightAdapter(gamma=0.5, n_centers=NUM_TARGET, random_state=0)
    theirs = weighed(problem, adapter)
    ours = alignment.KLIEP([1.0], num_centres=NUM_TARGET, min_effective_rows=1).fit(
        problem.source, None, problem.target
    )

    def likelihood(coefficients: Array, centres: Array) -> float:
        def ratio(rows: Array) -> Array:
            return np.asarray(np.exp(-np.square(rows[:, None] - centres[None]).sum(axis=2) / 2) @ coefficients)

        return float(np.log(ratio(problem.target)).mean() - np.log(ratio(problem.source).mean()))

    return {
        "gap": gap(ours.weights_, share(theirs)),
        "objective_ours": likelihood(ours.coefficients_, ours.centres_),
        "objective_theirs": likelihood(adapter.alpha_, adapter.centers_),
        "their_coefficients_spread": float(np.ptp(adapter.alpha_) / adapter.alpha_.mean()),
        "why": "their step along the slope is 2e-16 long, so that the coefficients stay where the constraint puts ones; centres "
        "are drawn with replacement",
    }


def emd(problem: Problem) -> Found:
    from skada import OTMappingAdapter

    ours = alignment.EMDTransport().fit_transform(problem.source, None, problem.target)
    return {"gap": gap(ours, moved(problem, OTMappingAdapter())), "why": "one exact solver, POT's"}


def sinkhorn(problem: Problem) -> Found:
    from skada import EntropicOTMappingAdapter

    ours = alignment.SinkhornTransport(0.05, normalise="median", tolerance=1e-12, max_rounds=10_000)
    theirs = EntropicOTMappingAdapter(reg_e=0.05, norm="median", tol=1e-12, max_iter=10_000)
    plain = EntropicOTMappingAdapter(reg_e=0.05, norm="median")
    rows = ours.fit_transform(problem.source, None, problem.target)
    return {
        "gap": gap(rows, moved(problem, theirs)),
        "gap_at_their_tolerance": gap(rows, moved(problem, plain)),
        "why": "the same iteration; without a norm, their default, the plan depends on the unit of the features",
    }


def class_transport(problem: Problem) -> Found:
    from skada import ClassRegularizerOTMappingAdapter

    costs = np.square(problem.source[:, None] - problem.target[None]).sum(axis=2)
    members = np.eye(3)[problem.labels]

    def lasso(plan: Array) -> float:
        entropy = float((plan * np.log(np.maximum(plan, 1e-300))).sum())
        return float((plan * costs).sum() + 0.1 * entropy + 0.1 * np.sqrt(members.T @ np.square(plan)).sum())

    found: Found = {}
    for ours_name, theirs_name, weight in (
        ("group_lasso", "l1l2", 0.1),
        ("lpl1", "lpl1", 0.1 * np.sqrt(NUM_TARGET)),
    ):
        ours = alignment.ClassRegularisedTransport(0.1, weight, ours_name, normalise="none", max_rounds=200)
        rows = ours.fit_transform(problem.source, problem.labels, problem.target)
        theirs = ClassRegularizerOTMappingAdapter(
            reg_e=0.1, reg_cl=0.1, norm=theirs_name, max_iter=200, max_inner_iter=2000
        )
        found[f"gap_{theirs_name}"] = gap(rows, moved(problem, theirs))
        if theirs_name == "l1l2":
            found["objective_theirs"] = lasso(theirs.ot_transport_.coupling_)
            found["objective_ours"] = lasso(ours.plan_)
    found["gap"] = found["gap_l1l2"]
    return found | {
        "why": "the group lasso is one convex problem; in lpl1 the small number under the root is added to masses there, to "
        "shares of a target row here"
    }


def jdot_regression(problem: Problem) -> Found:
    from skada import JDOTRegressor
    from sklearn.linear_model import LinearRegression

    adapter = JDOTRegressor(LinearRegression(), alpha=0.5, tol=1e-12)
    adapter.fit(problem.rows, problem.masked_values, sample_domain=problem.domains)
    ours = alignment.JDOTRegressor(
        feature_weight=1 / problem.values.var(), regularisation=1e-10, kernel="linear", max_rounds=200
    ).fit(problem.source, problem.values, problem.target)
    costs = np.square(problem.source[:, None] - problem.target[None]).sum(axis=2)

    def objective(plan: Array, answers: Array) -> float:
        return float((plan * (costs / costs.mean() + np.square(problem.values[:, None] - answers[None]))).sum() / 2)

    theirs, mine = adapter.predict(problem.target), ours.predict(problem.target)
    return {
        "gap": gap(mine, theirs),
        "objective_ours": objective(ours.plan_, mine),
        "objective_theirs": objective(adapter.sol_.plan, theirs),
        "why": "several resting points: they begin with the plan of the rows alone, we with the source's regressor",
    }


def jdot_classification(problem: Problem) -> Found:
    from skada import JDOTClassifier
    from sklearn.linear_model import LogisticRegression

    adapter = JDOTClassifier(LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000), alpha=0.5, tol=1e-12)
    adapter.fit(problem.rows, problem.masked, sample_domain=problem.domains)
    ours = alignment.JDOTClassifier(feature_weight=1.0, regularisation=1 / NUM_TARGET, max_rounds=200).fit(
        problem.source, problem.labels, problem.target
    )
    costs = np.square(problem.source[:, None] - problem.target[None]).sum(axis=2)

    def objective(plan: Array, coefficients: Array, intercepts: Array) -> float:
        losses = -log_softmax(problem.target @ coefficients + intercepts, axis=1)[:, problem.labels].T
        return float((plan * (costs / costs.mean() + losses)).sum() + np.square(coefficients).sum() / 2 / NUM_TARGET)

    theirs = adapter.estimator_
    return {
        "gap": gap(ours.predict_proba(problem.target), adapter.predict_proba(problem.target)),
        "objective_ours": objective(ours.plan_, ours.coefficients_, ours.intercepts_),
        "objective_theirs": objective(adapter.sol_.plan, theirs.coef_.T, theirs.intercept_),
        "why": "one objective; they begin with the plan of the rows alone, we with the source's classifier",
    }


def nearest(problem: Problem) -> Found:
    from skada import NearestNeighborReweightAdapter

    ours = alignment.NearestNeighbourWeighting(1.0, min_effective_rows=1).fit(problem.source, None, problem.target)
    theirs = NearestNeighborReweightAdapter(laplace_smoothing=True).fit(problem.rows, sample_domain=problem.domains)
    counts = theirs._get_weights(problem.source, problem.target)
    public = np.asarray(theirs.compute_weights(problem.rows, sample_domain=problem.domains))[:NUM_SOURCE]
    return {
        "gap": gap(ours.weights_, share(counts)),
        "gap_of_compute_weights": gap(ours.weights_, share(public)),
        "why": "the counts agree at mean 1; compute_weights takes ~ of row numbers for the target's rows, and counts "
        "the last rows of the array",
    }


def discriminator(problem: Problem) -> Found:
    from skada import DiscriminatorReweightAdapter
    from sklearn.linear_model import LogisticRegression

    source, target = problem.standard
    ours = alignment.DiscriminatorRatio(1.0, min_effective_rows=1).fit(source, None, target).weights_
    theirs = weighed(
        problem,
        DiscriminatorReweightAdapter(LogisticRegression(tol=1e-10, max_iter=10_000)),
        np.concatenate([source, target]),
    )
    return {
        "gap": gap(ours, share(theirs)),
        "gap_to_one_over_theirs": gap(ours, share(1 / theirs)),
        "why": "theirs is P(source) / P(target), the ratio turned over: rows far from the target weigh most",
    }


JOBS: dict[str, Callable[[Problem], Found]] = {
    "coral": coral,
    "linear_ot": linear_ot,
    "subspace": subspace,
    "tca": tca,
    "kmm": kmm,
    "kliep": kliep,
    "emd": emd,
    "sinkhorn": sinkhorn,
    "class_transport": class_transport,
    "jdot_regression": jdot_regression,
    "jdot_classification": jdot_classification,
    "nearest": nearest,
    "discriminator": discriminator,
}


def main() -> None:
    """Compare, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(JOBS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    problem, found = Problem(), {}
    with threadpool_limits(1):
        for job in options.only.split(","):
            found[job] = JOBS[job](problem)
            print(job, {key: value for key, value in found[job].items() if key != "why"}, flush=True)
    peers = {name: importlib.metadata.version(name) for name in ("skada", "POT")}
    if options.only == ",".join(JOBS):
        store_result(RESULTS, "differences", {"peers": peers, "rows": [NUM_SOURCE, NUM_TARGET], "jobs": found})


if __name__ == "__main__":
    main()
