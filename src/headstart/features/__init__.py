"""One cached pass over the data: rows through the frozen part of a base model, once ever."""

from headstart.features.engine import FrozenPart
from headstart.features.extract import Features, chosen_runtime, extract_features
from headstart.features.probe import choose_runtime
from headstart.features.ragged import RaggedRows
from headstart.features.runtime import Runtime, RuntimeChoice
from headstart.features.store import FeatureStore, Space, SpaceListing

__all__ = [
    "FeatureStore",
    "Features",
    "FrozenPart",
    "RaggedRows",
    "Runtime",
    "RuntimeChoice",
    "Space",
    "SpaceListing",
    "choose_runtime",
    "chosen_runtime",
    "extract_features",
]
