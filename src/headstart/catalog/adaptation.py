"""Names of what measures the distance of two domains, brings them together, and chooses among the results."""

from __future__ import annotations

from headstart.catalog.entry import Entry

__all__ = ["ALIGNERS", "DISTANCES", "RULES"]


def _aligner(name: str, attribute: str, summary: str, needs: str = "") -> Entry:
    return Entry(
        name,
        "aligner",
        f"headstart.alignment:{attribute}",
        summary,
        needs=needs,
        install='"headstart[ot]"' if needs else "",
    )


def _rule(name: str, attribute: str, summary: str) -> Entry:
    return Entry(name, "rule", f"headstart.evaluation.selection:{attribute}", summary)


def _distance(name: str, attribute: str, summary: str, needs: str = "") -> Entry:
    return Entry(
        name,
        "distance",
        f"headstart.distances:{attribute}",
        summary,
        needs=needs,
        install='"headstart[ot]"' if needs else "",
    )


ALIGNERS = (_aligner("coral", "CORAL", "the source takes the target's mean and covariance"),)

DISTANCES = (
    Entry("coral", "distance", "headstart.distances.coral:coral_distance", "squared gap between two covariances"),
)

RULES = (
    _rule("circular-validation", "CircularValidation", "adapt there and back: do the source labels return?"),
    _rule("importance-weighted", "ImportanceWeighted", "held-out source rows, weighted by how target-like they are"),
    _rule("dev", "DeepEmbeddedValidation", "importance-weighted risk with a control variate, on adapted features"),
    _rule("source-accuracy", "SourceAccuracy", "accuracy on held-out source rows: ignores the target"),
    _rule("entropy", "PredictionEntropy", "how sure the answers on the target are; rewards collapse"),
    _rule("bnm", "BatchNuclearNorm", "nuclear norm of the target's probabilities: sure and diverse"),
    _rule("infomax", "InfoMax", "mutual information between target rows and answers"),
    _rule("class-ami", "ClassAMI", "do clusters of target features agree with the answers?"),
    _rule("snd", "SoftNeighbourhoodDensity", "do near target rows get equal answers?"),
    _rule("mixval", "MixVal", "do mixtures of target rows get mixtures of answers?"),
    _rule("rankme", "RankMe", "effective rank of the adapted target features"),
    _rule("ensemble-agreement", "EnsembleAgreement", "who agrees most with the mean of all candidates?"),
    _rule("rank-consensus", "RankConsensus", "several rules vote by ranks, with a margin for not adapting"),
)
