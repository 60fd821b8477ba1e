"""Floor 5: recipes. Each is one file and one line in the catalog."""

from headstart.methods.adapted_module import AdaptedModule, adapt_module
from headstart.methods.adapted_network import AdaptedNetwork, AdaptedNetworkRegressor
from headstart.methods.deep_adaptation import DeepAdaptation, DeeplyAdapted
from headstart.methods.feature_extraction import FeatureExtraction
from headstart.methods.fine_tuned import FineTuned
from headstart.methods.fine_tuning import FineTuning
from headstart.methods.from_scratch import FromScratch, ScratchModel
from headstart.methods.test_time import TestTimeAdaptation

__all__ = [
    "AdaptedModule",
    "AdaptedNetwork",
    "AdaptedNetworkRegressor",
    "DeepAdaptation",
    "DeeplyAdapted",
    "FeatureExtraction",
    "FineTuned",
    "FineTuning",
    "FromScratch",
    "ScratchModel",
    "TestTimeAdaptation",
    "adapt_module",
]
