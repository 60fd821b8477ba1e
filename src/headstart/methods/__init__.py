"""Floor 4: recipes. Each is one file and one line in the catalog."""

from headstart.methods.feature_extraction import FeatureExtraction
from headstart.methods.fine_tuned import FineTuned
from headstart.methods.fine_tuning import FineTuning
from headstart.methods.from_scratch import FromScratch, ScratchModel

__all__ = ["FeatureExtraction", "FineTuned", "FineTuning", "FromScratch", "ScratchModel"]
