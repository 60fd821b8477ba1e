"""A trained model as a thing of its own: it predicts, and it is a folder that can be checked, moved and loaded."""

from headstart.model.folder import find_model, load_model, save_model
from headstart.model.model import Model
from headstart.model.predictions import Predictions

__all__ = ["Model", "Predictions", "find_model", "load_model", "save_model"]
