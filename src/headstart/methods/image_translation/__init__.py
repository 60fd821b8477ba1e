"""Adaptation of images before any network sees them: amplitudes swapped, or generators trained against critics."""

from headstart.methods.image_translation.cycada import CyCADA, cycada
from headstart.methods.image_translation.fourier import FourierRows, swap_amplitude
from headstart.methods.image_translation.networks import Generator, PatchCritic
from headstart.methods.image_translation.source_rows import (
    CyCADATranslation,
    FourierTranslation,
    GeneratorTranslation,
    SourceTranslation,
)
from headstart.methods.image_translation.translating import ImageTranslation, TranslatedRows, Translator

__all__ = [
    "CyCADA",
    "CyCADATranslation",
    "FourierRows",
    "FourierTranslation",
    "Generator",
    "GeneratorTranslation",
    "ImageTranslation",
    "PatchCritic",
    "SourceTranslation",
    "TranslatedRows",
    "Translator",
    "cycada",
    "swap_amplitude",
]
