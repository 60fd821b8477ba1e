"""Floor 1: how far apart two domains are. Pure functions of arrays or tensors; nothing imports torch."""

from headstart.distances.cka import kernel_cka, linear_cka
from headstart.distances.coral import coral_distance
from headstart.distances.diagnosis import SUGGESTIONS, Diagnosis, FeatureShift, diagnose, inspect_gap, shifted_features
from headstart.distances.discrepancy import linear_discrepancy, linear_discrepancy_direction
from headstart.distances.divergences import (
    js_divergence,
    kl_divergence,
    label_js_divergence,
    label_kl_divergence,
    label_shares,
)
from headstart.distances.energy import energy_distance
from headstart.distances.frechet import gaussian_frechet_distance
from headstart.distances.label_shift import LabelShift, bbse, correct_probabilities, em_priors
from headstart.distances.measures import (
    MEASURES,
    Measure,
    Measurement,
    measure,
    measure_domains,
    measurement_of_classifier,
)
from headstart.distances.mmd import linear_time_mmd, linear_time_mmd_error, mk_mmd, pooled_kernel
from headstart.distances.neighbourhoods import soft_neighbourhood_density
from headstart.distances.novelty import Novelty, novelty_of_rows
from headstart.distances.permutation import PermutationTest, pair_matrix_test, permutation_test
from headstart.distances.proxy_a import DomainClassification, classify_domains, proxy_a_distance
from headstart.distances.sinkhorn import sinkhorn_divergence
from headstart.distances.wasserstein import (
    exact_wasserstein,
    max_sliced_direction,
    max_sliced_wasserstein,
    sliced_wasserstein,
    wasserstein_1d,
)

__all__ = [
    "MEASURES",
    "SUGGESTIONS",
    "Diagnosis",
    "DomainClassification",
    "FeatureShift",
    "LabelShift",
    "Measure",
    "Measurement",
    "Novelty",
    "PermutationTest",
    "bbse",
    "classify_domains",
    "coral_distance",
    "correct_probabilities",
    "diagnose",
    "em_priors",
    "energy_distance",
    "exact_wasserstein",
    "gaussian_frechet_distance",
    "inspect_gap",
    "js_divergence",
    "kernel_cka",
    "kl_divergence",
    "label_js_divergence",
    "label_kl_divergence",
    "label_shares",
    "linear_cka",
    "linear_discrepancy",
    "linear_discrepancy_direction",
    "linear_time_mmd",
    "linear_time_mmd_error",
    "max_sliced_direction",
    "max_sliced_wasserstein",
    "measure",
    "measure_domains",
    "measurement_of_classifier",
    "mk_mmd",
    "novelty_of_rows",
    "pair_matrix_test",
    "permutation_test",
    "pooled_kernel",
    "proxy_a_distance",
    "shifted_features",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "soft_neighbourhood_density",
    "wasserstein_1d",
]
