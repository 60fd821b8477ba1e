"""CyCADA: translate the source's images, keep their classes by a classifier of the source, and align features on top.

    1. a network learns from source rows             2. generators are trained; the network says which classes have to stay
    3. a network that starts from it learns from translated source rows and target rows, by a recipe (adversarial features)

Source: Hoffman et al., "CyCADA: Cycle-Consistent Adversarial Domain Adaptation", ICML 2018 (arXiv:1711.03213), section 3; the
paper, too, trains its three steps one after the other, and its critic of features sees translated source rows and target rows.
Use it on small images whose domains differ in how they are drawn, where aligned features alone do not suffice.
It ignores whether the translation has helped: compare it with the recipe on source rows as they are.
Shapes: those of `headstart.methods.image_translation.translating`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from headstart.core.progress import Progress
from headstart.core.tasks import Task
from headstart.methods.adaptations import RecipeOf, source_only
from headstart.methods.adaptations.carry_out import Adapting, adapt_network, loss_of, make_recipe
from headstart.methods.image_translation.translating import ImageTranslation, TranslatedRows, Translator
from headstart.training import Network, TrainingConfig, TrainingRows

__all__ = ["CyCADA", "cycada"]


@dataclass(frozen=True)
class CyCADA:
    """What `cycada` leaves.

    Parameters
    ----------
    classifier : Network
        Trained on source rows alone.
    translator : Translator
        Between the domains' images.
    network : Network
        Answers for the target.
    """

    classifier: Network
    translator: Translator
    network: Network


def cycada(
    make_network: Callable[[], Network],
    source: TrainingRows,
    target: TrainingRows,
    task: Task,
    config: TrainingConfig,
    *,
    recipe: RecipeOf = source_only,
    translation: ImageTranslation | None = None,
    progress: Progress | None = None,
) -> CyCADA:
    """Adapt a small network of images to a target, on the level of images and of features.

    Parameters
    ----------
    make_network : callable
        Gives a network at its starting weights, with the recipe's heads, the same each time.
    source : TrainingRows
        Labelled images.
    target : TrainingRows
        Images; labels among them are not looked at.
    task : Task
        What labels mean: one class for each row.
    config : TrainingConfig
        Of both trainings of the network.
    recipe : callable
        Of the last training, on translated rows; ``dann`` is the paper's, `source_only` stops at the images.
    translation : ImageTranslation, optional
        How generators are trained; as they come when left out.
    progress : Progress, optional
        Gets a stage for each training.

    Raises
    ------
    ShapeError
        If images have no size that will do.
    ConfigError
        If the recipe does not suit the network.
    TrainingError
        If a loss cannot be believed.
    """

    def adapt(network: Network, rows: TrainingRows, by: RecipeOf) -> Network:
        made = make_recipe(by, task, config, rows)
        adapt_network(
            Adapting(network, task, rows, target, made, config, loss_of(task, config, rows)), progress=progress
        )
        return network

    classifier = adapt(make_network(), source, source_only)
    how = translation or ImageTranslation()
    translator = how.fit(source, target, task, classifier=classifier, progress=progress)
    network = make_network()
    network.load_state_dict(classifier.state_dict())
    translated = replace(source, inputs=TranslatedRows(source.inputs, translator.to_target))
    return CyCADA(classifier, translator, adapt(network, translated, recipe))
