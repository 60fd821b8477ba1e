"""What translators and their critics make smaller: least-squares games, cycles, identities, and what a classifier says.

    G: source -> target, F: target -> source, D_t and D_s: critics, f: a classifier trained on the source
    generators:  (D_t(G(x)) - 1)^2 + (D_s(F(y)) - 1)^2
                 + cycle (|F(G(x)) - x| + |G(F(y)) - y|) + identity (|F(x) - x| + |G(y) - y|)
                 + semantic (ce(f(G(x)), argmax f(x)) + ce(f(F(y)), argmax f(y)))
    critics:     1/2 ((D_t(y) - 1)^2 + D_t(G(x))^2) + 1/2 ((D_s(x) - 1)^2 + D_s(F(y))^2)          all of them means

Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017
(arXiv:1703.10593), equations 2 and 3 and section 4, cycle = 10, without its store of earlier images; Hoffman et al., "CyCADA:
Cycle-Consistent Adversarial Domain Adaptation", ICML 2018 (arXiv:1711.03213), equation 4, for the semantic terms.
Use them in two phases of one step on a network with one segment, `Generators`. They ignore labels.
Shapes: b source images, m target images, c channels, h x w pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.core.errors import ConfigError
from headstart.core.seeds import derive_seed
from headstart.methods.image_translation.networks import Generators, PatchCritic
from headstart.objectives import Batch, Objective, Setup, cross_entropy
from headstart.training import Network

__all__ = [
    "GENERATORS",
    "CycleTranslation",
    "PatchCritics",
    "least_squares_critic",
    "least_squares_fooling",
]

GENERATORS = "generators"


def least_squares_critic(real: Tensor, made: Tensor) -> Tensor:
    """Return the loss of a critic that should say 1 of real images and 0 of made ones.

    Examples
    --------
    >>> least_squares_critic(torch.tensor([1.0, 0.0]), torch.tensor([2.0]))          # (0.5 + 4) / 2
    tensor(2.2500)
    """
    return ((real - 1).square().mean() + made.square().mean()) / 2


def least_squares_fooling(made: Tensor) -> Tensor:
    """Return the loss of a generator whose images a critic should take for real.

    Examples
    --------
    >>> least_squares_fooling(torch.tensor([1.0, 0.0]))
    tensor(0.5000)
    """
    return (made - 1).square().mean()


class PatchCritics(Objective):
    """The critics of both domains, and their loss.

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Of the critics.
    seed : int
        Of the critics' first weights.
    weight : float
        Multiplies the term.

    Raises
    ------
    ConfigError
        In use, if `prepare` has not been called.
    """

    needs = frozenset({"hidden"})

    def __init__(self, channels: int = 1, width: int = 16, seed: int = 0, weight: float = 1.0) -> None:
        super().__init__()
        self.channels, self.width, self.seed, self.weight = channels, width, seed, weight
        self.source, self.target = (
            PatchCritic(channels, width, derive_seed(seed, name)) for name in ("source", "target")
        )
        self.generators: list[Generators] = []  # in a list: they are the network's

    def prepare(self, setup: Setup) -> None:
        """Find the generators."""
        self.generators = _generators(setup)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times both critics' losses; nothing reaches the generators."""
        x, y = images_of(self, source, target)
        (generators,) = self.generators
        with torch.no_grad():
            made_target, made_source = generators.to_target(x), generators.to_source(y)
        loss = least_squares_critic(self.target(y), self.target(made_target))
        return self.weight * (loss + least_squares_critic(self.source(x), self.source(made_source)))


class CycleTranslation(Objective):
    """The loss of both generators.

    Parameters
    ----------
    critics : PatchCritics
        Judge; they train by their own loss.
    classifier : Network, optional
        Trained on the source; says which classes have to stay.
    cycle, identity, semantic : float, at least 0
        Weights of the terms.
    weight : float
        Multiplies the whole.

    Raises
    ------
    ConfigError
        If a weight is below 0, or there is a semantic weight without a classifier.
    """

    needs = frozenset({"hidden"})

    def __init__(
        self,
        critics: PatchCritics,
        classifier: Network | None = None,
        cycle: float = 10.0,
        identity: float = 0.0,
        semantic: float = 0.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (("cycle", cycle), ("identity", identity), ("semantic", semantic)):
            if not value >= 0:
                raise ConfigError(f"CycleTranslation: {name} is at least 0; got {value}.")
        if semantic and classifier is None:
            raise ConfigError("CycleTranslation: a semantic weight needs a classifier of the source; give one.")
        self._critics = [critics]
        self._classifier = [] if classifier is None else [classifier.twin()]
        self.cycle, self.identity, self.semantic, self.weight = cycle, identity, semantic, weight
        self.generators: list[Generators] = []

    def config(self) -> dict[str, float]:
        """Return the weights: critics and classifier are parts of the run, not options."""
        return {name: getattr(self, name) for name in ("cycle", "identity", "semantic", "weight")}

    def prepare(self, setup: Setup) -> None:
        """Find the generators."""
        self.generators = _generators(setup)

    def forward(self, source: Batch, target: Batch | None = None) -> Tensor:
        """Return ``weight`` times the sum of the terms."""
        x, y = images_of(self, source, target)
        to_target, to_source = self.generators[0].to_target, self.generators[0].to_source
        made_target, made_source = to_target(x), to_source(y)
        critics = self._critics[0]
        loss = least_squares_fooling(critics.target(made_target)) + least_squares_fooling(critics.source(made_source))
        if self.cycle:
            there, back = to_source(made_target), to_target(made_source)
            loss = loss + self.cycle * ((there - x).abs().mean() + (back - y).abs().mean())
        if self.identity:
            loss = loss + self.identity * ((to_source(x) - x).abs().mean() + (to_target(y) - y).abs().mean())
        if self.semantic:
            loss = loss + self.semantic * (self._kept(x, made_target) + self._kept(y, made_source))
        return self.weight * loss

    def _kept(self, images: Tensor, made: Tensor) -> Tensor:
        """Return how far the classifier's answers for made images are from those for the images they were made of."""
        classifier = self._classifier[0]
        with torch.no_grad():
            answers_b = classifier(images).logits.argmax(1)
        return cross_entropy(classifier(made).logits, answers_b)


def images_of(objective: Objective, source: Batch, target: Batch | None) -> tuple[Tensor, Tensor]:
    """Return the images of both streams.

    Raises
    ------
    ConfigError
        If there is no second stream.
    """
    (other,) = objective.chosen("target", source, target)
    first, second = source.hidden, other.hidden
    if first is None or second is None:
        raise ConfigError(f"{type(objective).__name__}: needs hidden of the batch, which is empty; the loop fills it.")
    return first[0], second[0]


def _generators(setup: Setup) -> list[Generators]:
    found = setup.segments()[GENERATORS]
    assert isinstance(found, Generators)
    return [found]
