"""Adaptation of images before any network sees them: amplitudes swapped, or generators trained against critics."""

from headstart.methods.image_translation.fourier import FourierRows, swap_amplitude
from headstart.methods.image_translation.networks import Generator, PatchCritic
from headstart.methods.image_translation.translating import ImageTranslation, TranslatedRows, Translator

__all__ = [
    "FourierRows",
    "Generator",
    "ImageTranslation",
    "PatchCritic",
    "TranslatedRows",
    "Translator",
    "swap_amplitude",
]
