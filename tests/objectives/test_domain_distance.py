"""Distances of domains as loss terms: which layers, which distances, and that each has the gradient of its value."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from headstart import distances
from headstart.core.errors import ConfigError, ShapeError
from headstart.distances import MEASURES
from headstart.objectives import Batch, CrossEntropy, DomainDistance, joint_loss, ramp
from headstart.objectives.domain_distance import DIFFERENTIABLE, NOT_DIFFERENTIABLE
from headstart.objectives.layers import layer_rows

RANDOM = np.random.default_rng(6)
SOURCE, TARGET = RANDOM.normal(size=(6, 3)), 1.5 * RANDOM.normal(size=(6, 3)) + 0.7
S, T = torch.from_numpy(SOURCE), torch.from_numpy(TARGET)
FUNCTIONS = {
    "mk-mmd": distances.mk_mmd,
    "linear-mmd": lambda a, b: distances.linear_time_mmd(a, b, seed=DomainDistance("linear-mmd").step_seed()),
    "energy": distances.energy_distance,
    "coral": distances.coral_distance,
    "frechet": distances.gaussian_frechet_distance,
    "linear-discrepancy": distances.linear_discrepancy,
    "sliced-wasserstein": lambda a, b: distances.sliced_wasserstein(a, b, seed=DomainDistance().step_seed()),
    "max-sliced-wasserstein": lambda a, b: distances.max_sliced_wasserstein(a, b, seed=DomainDistance().step_seed()),
    "sinkhorn": distances.sinkhorn_divergence,
    "wasserstein-1": lambda a, b: distances.exact_wasserstein(a, b, order=1),
    "wasserstein-2": lambda a, b: distances.exact_wasserstein(a, b, order=2),
    "kl-gaussian": distances.kl_divergence,
    "js-gaussian": distances.js_divergence,
}
# what the distance holds constant is held constant here too, or the twin has no such gradient
FIXED: dict[str, dict[str, Any]] = {
    "mk-mmd": {"variances": (0.5, 2.0)},
    "linear-mmd": {"variances": (0.5, 2.0)},
    "sinkhorn": {"epsilon": 4.0, "normalise": False, "tolerance": 1e-8},
}


def test_every_measure_is_a_loss_or_refused_in_words() -> None:
    assert set(DIFFERENTIABLE) | set(NOT_DIFFERENTIABLE) == set(MEASURES)
    assert not set(DIFFERENTIABLE) & set(NOT_DIFFERENTIABLE)
    assert set(FUNCTIONS) == set(DIFFERENTIABLE)
    for name, reason in NOT_DIFFERENTIABLE.items():
        with pytest.raises(ConfigError, match=f"'{name}' cannot be a loss: it ") as refused:
            DomainDistance(name)
        assert reason in str(refused.value)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_value_is_the_measures_on_arrays(name: str) -> None:
    if MEASURES[name].needs:
        pytest.importorskip(MEASURES[name].needs)
    expected = FUNCTIONS[name](SOURCE, TARGET)
    value = DomainDistance(name, weight=2.0)(Batch(features=S), Batch(features=T))
    assert value.item() == pytest.approx(2 * expected, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in DIFFERENTIABLE if name != "max-sliced-wasserstein"])
def test_the_gradient_is_the_numeric_one(name: str) -> None:
    if MEASURES[name].needs:
        pytest.importorskip(MEASURES[name].needs)
    objective = DomainDistance(name, options=FIXED.get(name))
    features = T[:4, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda rows: objective(Batch(features=S[:4, :2]), Batch(features=rows)), (features,), atol=1e-5, rtol=1e-3
    )


def test_the_gradient_of_max_sliced_is_that_along_the_direction_found() -> None:
    first, second = T.clone().requires_grad_(), T.clone().requires_grad_()
    objective = DomainDistance("max-sliced-wasserstein")
    objective(Batch(features=S), Batch(features=first)).backward()
    direction = torch.from_numpy(distances.max_sliced_direction(S, T, seed=objective.step_seed()))
    distances.wasserstein_1d(S @ direction, second @ direction, order=2).backward()
    assert torch.allclose(first.grad, second.grad, atol=1e-12)


def test_divergences_of_gaussians_are_their_formulas() -> None:
    """KL by NumPy's own inverse and determinant, JS by densities of SciPy, on rows standardised together."""
    centre = (SOURCE.mean(0) + TARGET.mean(0)) / 2
    spread = np.sqrt((((SOURCE - centre) ** 2).mean(0) + ((TARGET - centre) ** 2).mean(0)) / 2)
    rows = [(part - centre) / spread for part in (SOURCE, TARGET)]
    means, covariances = [part.mean(0) for part in rows], [np.cov(part.T) + 0.1 * np.eye(3) for part in rows]
    inverse, gap = np.linalg.inv(covariances[1]), means[1] - means[0]
    determinants = [np.linalg.det(covariance) for covariance in covariances]
    kl = (np.trace(inverse @ covariances[0]) + gap @ inverse @ gap - 3 + np.log(determinants[1] / determinants[0])) / 2
    densities = [
        [stats.multivariate_normal(m, c).pdf(part) for m, c in zip(means, covariances, strict=True)] for part in rows
    ]
    shares = [(p / (p + q), q / (p + q)) for p, q in densities]  # what each row says of its domain
    js = np.mean([np.mean(sum(w * np.log(2 * w) for w in both)) for both in shares])
    for name, wanted in (("kl-gaussian", kl), ("js-gaussian", js)):
        objective = DomainDistance(name, options={"regularisation": 0.1})
        assert objective(Batch(features=S), Batch(features=T)).item() == pytest.approx(wanted, rel=1e-9)
        single = objective(Batch(features=S.float()), Batch(features=T.float()))
        assert single.dtype == torch.float32 and single.item() == pytest.approx(wanted, rel=1e-4)
        same = S.clone().requires_grad_()
        objective(Batch(features=S), Batch(features=same)).backward()
        assert same.grad is not None and same.grad.abs().max() < 1e-9  # equal domains are at the minimum


def test_it_is_a_term_of_the_joint_loss() -> None:
    source = Batch(labels=torch.tensor([0] * 6), features=S, logits=torch.zeros(6, 2, dtype=torch.float64))
    terms = [CrossEntropy(), DomainDistance("energy", weight=0.3)]
    value = joint_loss(terms, source, Batch(features=T)).item()
    assert value == pytest.approx(np.log(2) + 0.3 * distances.energy_distance(SOURCE, TARGET))


def test_it_rises_where_asked() -> None:
    for share in (0.0, 0.5, 1.0):
        source, target = Batch(features=S, share=share), Batch(features=T, share=share)
        expected = ramp(share, 4.0) * distances.coral_distance(SOURCE, TARGET)
        assert DomainDistance("coral", rise=4.0)(source, target).item() == pytest.approx(expected)
    with pytest.raises(ConfigError, match="rise is at least 0; got -1"):
        DomainDistance(rise=-1.0)


def test_directions_are_drawn_anew_in_every_step_and_kept_over_a_stop() -> None:
    objective, values = DomainDistance("sliced-wasserstein", options={"num_directions": 3}), []
    for _ in range(3):
        values.append(objective(Batch(features=S), Batch(features=T)).item())
        objective.after_step()
    assert len(set(values)) == 3
    resumed = DomainDistance("sliced-wasserstein", options={"num_directions": 3})
    resumed.load_state_dict({"steps": torch.tensor(2)})
    assert resumed(Batch(features=S), Batch(features=T)).item() == values[2]


def test_layers_by_name() -> None:
    maps, tokens = torch.rand(2, 3, 4, 5), torch.rand(2, 7, 3)
    batch = Batch(
        features=torch.ones(2, 3).bfloat16(),
        logits=torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]),
        activations={"maps": maps, "tokens": tokens, "flat": torch.zeros(2, 6)},
    )
    objective = DomainDistance()
    assert layer_rows(objective, batch, "features").dtype == torch.float32
    assert layer_rows(objective, batch, "logits") is batch.logits
    assert torch.allclose(layer_rows(objective, batch, "probabilities"), torch.tensor([[0.5, 0.5], [0.75, 0.25]]))
    assert torch.allclose(layer_rows(objective, batch, "segments.maps"), maps.mean((2, 3)))
    assert torch.allclose(layer_rows(objective, batch, "segments.tokens"), tokens.mean(1))
    assert layer_rows(objective, batch, "segments.flat").shape == (2, 6)
    with pytest.raises(ConfigError, match=r"activations\['stem'\]"):
        layer_rows(objective, batch, "segments.stem")


@pytest.mark.parametrize(
    ("layer", "needs"),
    [("features", "features"), ("logits", "logits"), ("probabilities", "logits"), ("segments.stem", "activations")],
)
def test_only_what_the_layer_needs_is_asked_for(layer: str, needs: str) -> None:
    assert DomainDistance(layer=layer).needs == {needs}


def test_bad_input_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"no distance is called 'corral'.*Did you mean 'coral'"):
        DomainDistance("corral")
    with pytest.raises(
        ConfigError, match=r"'sinkhorn' has no option 'epsilom'; it takes epsilon.*Did you mean 'epsilon'"
    ):
        DomainDistance("sinkhorn", options={"epsilom": 0.1})
    with pytest.raises(ConfigError, match=r"'coral' has no option 'order'; it takes none"):
        DomainDistance("coral", options={"order": 1})
    with pytest.raises(ConfigError, match="no option 'seed'"):
        DomainDistance("sliced-wasserstein", options={"seed": 1})
    with pytest.raises(ConfigError, match=r"'segments\.'"):
        DomainDistance(layer="segments.")
    with pytest.raises(ConfigError, match="needs a second stream"):
        DomainDistance()(Batch(features=S))
    with pytest.raises(ShapeError, match="3 features but target has 2"):
        DomainDistance()(Batch(features=S), Batch(features=T[:, :2]))


def test_options_reach_the_distance() -> None:
    value = DomainDistance("sinkhorn", options={"order": 1, "epsilon": 0.2})(Batch(features=S), Batch(features=T))
    assert value.item() == pytest.approx(distances.sinkhorn_divergence(SOURCE, TARGET, order=1, epsilon=0.2))
    assert "block_rows" in inspect.signature(DIFFERENTIABLE["energy"]).parameters
