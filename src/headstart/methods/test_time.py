"""Test-time adaptation: a model that is already trained goes on learning from the unlabelled rows it is used on.

    tent    entropy of the target rows, over scale and shift of the normalisation layers; statistics from the target
    eata    the same over sure, unlike rows, and scale and shift that mattered for the source stay
    adabn   statistics of batch normalisation from the target, nothing trains
    moments features of target rows get the mean and deviation that those of source rows have, each by itself; the network stays.
            The model keeps both of its training rows, so that these may be gone
    lame    the network stays; near target rows correct each other's answers

Source: Wang et al., "Tent", ICLR 2021 (arXiv:2006.10726); Niu et al., ICML 2022 (arXiv:2204.02610); Li et al. (arXiv:1603.04779);
Boudiaf et al., CVPR 2022. These adapt while they answer, batch by batch; here the target rows are given first, and a model comes
out that is saved like any other and answers each row by itself (lame: by the fitted rows). Without batch normalisation tent and
eata train layer and group normalisation, as later work does.
Use it where source rows are gone and the target differs as photos in other light, blur or noise do. The given model stays.
It ignores labels: those of the target rows are taken off. Few classes at once can lead tent astray; lame is made for them.
tent, eata and adabn suppose that the network learned its statistics from the source: those of a frozen base model are of the rows
it was pretrained on, its head was solved on features by them, and moments is what serves it (docs/benchmarks.md).
Shapes: m target rows, k classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Progress
from headstart.core.seeds import generator
from headstart.data import Dataset
from headstart.features import Features, FeatureStore
from headstart.heads import Head, NetworkHead, OpenSetHead
from headstart.methods.fisher_anchor import FisherAnchor, diagonal_fisher
from headstart.methods.network_outputs import network_outputs
from headstart.methods.target_statistics import affine_parameters, batch_normalisations, replace_statistics
from headstart.methods.tuning_rows import readable_rows
from headstart.model import Model
from headstart.model.lame_head import LAMEHead
from headstart.model.novelty import NoveltyScorer
from headstart.objectives import EATA, Entropy, Objective
from headstart.training import InputRows, Network, ParameterGroup, Phase, Plan, TrainingConfig, TrainingRows, train

__all__ = ["TestTimeAdaptation", "TestTimeMethod", "moment_map"]

TestTimeMethod = Literal["tent", "eata", "adabn", "moments", "lame"]

Array = npt.NDArray[Any]

_BATCH = 64
_STEPS = 50
_TRAINING = ("tent", "eata")


@dataclass(frozen=True)
class TestTimeAdaptation:
    """Adapt a trained model to the rows it is used on.

    Parameters
    ----------
    method : {"tent", "eata", "adabn", "moments", "lame"}
        What adapts.
    config : TrainingConfig, optional
        How tent and eata train: Adam at 1e-3, batches of 64, about 50 steps when left out.
    margin, similarity : float
        Of eata: which rows are sure, and unlike those before (`headstart.objectives.EATA`).
    anchor : float, at least 0
        Of eata: what moving a weight that mattered costs; 2000 as the authors take for ImageNet, 0 for nothing.
    prior : float, at least 0
        Of adabn: how many rows the source's statistics count as.
    num_neighbours : int, at least 1
        Of lame.
    agreement : float, at least 0
        Of lame: what agreement between neighbours is worth.
    seed : int
        Of the order of the rows, unless ``config`` has its own.

    Raises
    ------
    ConfigError
        If a value breaks its rule.

    Examples
    --------
    >>> TestTimeAdaptation("tents")
    Traceback (most recent call last):
        ...
    headstart.core.errors.ConfigError: TestTimeAdaptation: method is one of tent, eata, adabn, moments, lame; got \
'tents'.
    """

    __test__: ClassVar[bool] = False  # its name begins as those of tests do

    method: TestTimeMethod = "tent"
    config: TrainingConfig | None = None
    margin: float = 0.4
    similarity: float = 1.3
    anchor: float = 2000.0
    prior: float = 0.0
    num_neighbours: int = 5
    agreement: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(TestTimeMethod):
            known = ", ".join(get_args(TestTimeMethod))
            raise ConfigError(f"TestTimeAdaptation: method is one of {known}; got {self.method!r}.")
        EATA(margin=self.margin, similarity=self.similarity)
        for name in ("anchor", "prior", "agreement"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"TestTimeAdaptation: {name} is at least 0 and finite; got {value!r}.")
        if self.num_neighbours < 1:
            raise ConfigError(f"TestTimeAdaptation: num_neighbours is at least 1; got {self.num_neighbours!r}.")

    def fit(
        self,
        model: Model,
        target_rows: Dataset,
        *,
        source_rows: Dataset | None = None,
        store: FeatureStore | bool | None = None,
        runtime: str = "auto",
        progress: Progress | None = None,
    ) -> Model:
        """Return a new model for the target; the one that is given stays as it is.

        Parameters
        ----------
        model : Model
            Trained, with a head that is a network or solved (lame: any head of classes).
        target_rows : Dataset
            At least two; labels that come with them are taken off.
        source_rows : Dataset, optional
            Rows like those the model learned from; labels are not looked at. Left out, moments takes mean and deviation that the
            model keeps of its training rows (`NoveltyScorer.moments`), and eata the target's rows for what it keeps.
        store : FeatureStore or bool, optional
            Feature cache, for moments and lame.
        runtime : str
            What computes features, for moments and lame, as for `Model.predict`.
        progress : Progress, optional
            Gets one stage.

        Raises
        ------
        ConfigError
            If the model has no layers that the method adapts, or answers another task; if moments gets no source rows and the
            model keeps no moments.
        DataError
            If there are fewer than two target rows that can be read, or they are of another modality.
        """
        self._check(model)
        rows = _readable(target_rows, model, "target rows")
        if self.method == "lame":
            return self._correct(model, rows, {"store": store, "runtime": runtime, "progress": progress})
        if self.method == "moments":
            return self._match(model, rows, source_rows, {"store": store, "runtime": runtime, "progress": progress})
        tuned = model.backbone.copy()
        network = Network.of(tuned, {"main": model.head.to_module()}, stages=())
        kind, names = affine_parameters(network)
        self._check_layers(network, model, kind)
        known = None if source_rows is None else _readable(source_rows, model, "source rows")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        inputs = InputRows(rows, tuned)
        try:
            network.to(device)
            facts: dict[str, Any] = {"layers": kind or "batch", "target_rows": len(rows)}
            if self.method in _TRAINING:
                facts |= self._train(network, model, inputs, names, known, progress)
            if kind != "layer":
                batches = _batches(inputs, self._seed(), device)
                prior = self.prior if self.method == "adabn" else 0.0
                facts["statistics"] = replace_statistics(network, batches, num_rows=len(inputs), prior=prior)
            features = network_outputs(network, TrainingRows(inputs, None))[0]
        finally:
            network.cpu()
            inputs.close()
        tuned.refresh()
        tuned.source_head = None  # its answers are for features that are gone
        tuned.origin = f"adapted by {self.method} from {model.backbone.name} ({model.backbone.origin})"
        novelty = NoveltyScorer("standardised" if tuned.modality == "vector" else "cosine").fit(features)
        return self._made(replace(model, backbone=tuned, novelty=novelty, runtime="torch-fp32"), model, facts)

    def _check(self, model: Model) -> None:
        if model.task.kind == "regression" and self.method == "moments":
            raise ConfigError(
                "TestTimeAdaptation: moments rebuilds heads of classes; this model answers regression. Use 'adabn'."
            )
        if model.task.kind != "classification" and self.method not in {"adabn", "moments"}:
            raise ConfigError(
                f"TestTimeAdaptation: {self.method} looks at the probabilities of classes; this model answers {model.task.kind}. "
                "Only 'adabn' suits it."
            )

    def _check_layers(self, network: Network, model: Model, kind: str) -> None:
        """Refuse a network without what the method adapts."""
        if self.method == "adabn" and not batch_normalisations(network):
            raise ConfigError(
                f"TestTimeAdaptation: adabn replaces statistics of batch normalisation, and {model.backbone.name} has none; "
                f"use {'tent' if kind else 'lame'!r}."
            )
        if self.method in _TRAINING and not kind:
            raise ConfigError(
                f"TestTimeAdaptation: {self.method} trains scale and shift of normalisation layers, and {model.backbone.name} "
                "has none; use 'lame'."
            )

    def _seed(self) -> int:
        return self.seed if self.config is None else self.config.seed

    def _train(
        self,
        network: Network,
        model: Model,
        inputs: InputRows,
        names: list[str],
        source_rows: Dataset | None,
        progress: Progress | None,
    ) -> dict[str, Any]:
        """Train scale and shift on the target rows; return what was done."""
        plan = Plan((ParameterGroup(tuple(names)),), reason="scale and shift of the normalisation layers train")
        config = self.config or _default_config(len(inputs), self.seed)
        terms: list[Objective] = [Entropy()]
        if self.method == "eata":
            plan.carry_out(network)
            terms = [EATA(margin=self.margin, similarity=self.similarity)]
            if self.anchor:
                fisher = self._fisher(network, model.backbone, names, inputs, source_rows)
                terms.append(FisherAnchor(network, fisher, self.anchor))
        rows = TrainingRows(inputs, None)
        phase = Phase(tuple(terms), trains=("segments",), name=self.method, streams=("target",))
        history = train(
            network,
            model.task,
            rows,
            None,
            config,
            unlabelled=rows,
            phases=[phase],
            plan=plan,
            progress=progress,
            stage=f"adapt ({self.method})",
        )
        return {"steps": history.steps, "losses": {name: values[-1] for name, values in history.losses.items()}}

    def _fisher(
        self,
        network: Network,
        backbone: Backbone,
        names: list[str],
        inputs: InputRows,
        source_rows: Dataset | None,
    ) -> dict[str, Tensor]:
        """Return what scale and shift matter for the answers; statistics of the layers are as before afterwards."""
        given = inputs if source_rows is None else InputRows(source_rows, backbone)
        state = copy.deepcopy(network.state_dict())
        device = next(network.parameters()).device.type
        try:
            network.train()
            return diagonal_fisher(network, names, _batches(given, self._seed(), device))
        finally:
            network.load_state_dict(state)
            network.eval()
            if given is not inputs:
                given.close()

    def _correct(self, model: Model, rows: Dataset, how: dict[str, Any]) -> Model:
        """Return the model with answers that near target rows correct; it looks at the plain view alone."""
        plain = replace(model, views=model.views[:1])
        features = plain.features(rows, **how)
        values = features.values_nd
        values = values if values.ndim == 2 else values[:, 0]
        head = LAMEHead.fitted(model.head, values, num_neighbours=self.num_neighbours, weight=self.agreement)
        moved = int((head.answers_mk.argmax(1) != model.head.predict(values)).sum())
        facts = {"target_rows": len(values), "answers_changed": moved}
        return self._made(replace(plain, head=head, runtime=features.runtime.label), model, facts)

    def _match(self, model: Model, rows: Dataset, source_rows: Dataset | None, how: dict[str, Any]) -> Model:
        """Return the model with a head that reads target features as if they had the source's moments; plain view alone."""
        plain = replace(model, views=model.views[:1])
        facts: dict[str, Any] = {}
        if source_rows is not None:
            source_nd = _plain_values(plain.features(_readable(source_rows, model, "source rows"), **how))
            moments: tuple[Array, Array] | None = (source_nd.mean(axis=0), source_nd.std(axis=0))
            facts["source_rows"] = len(source_nd)
        else:
            moments = None if model.novelty is None else model.novelty.moments
        if moments is None:
            raise ConfigError(
                "TestTimeAdaptation: moments brings target features to the mean and deviation of source features, and this model "
                "keeps none of its training rows; give source_rows (their labels are not looked at), or use 'adabn'."
            )
        found = plain.features(rows, **how)
        target_md = _plain_values(found)
        head = _behind_map(model.head, *moment_map(moments, target_md))
        novelty = NoveltyScorer("standardised" if model.backbone.modality == "vector" else "cosine")
        facts["target_rows"] = len(target_md)
        made = replace(plain, head=head, novelty=novelty.fit(target_md), runtime=found.runtime.label)
        return self._made(made, model, facts)

    def _made(self, made: Model, model: Model, facts: dict[str, Any]) -> Model:
        provenance = copy.deepcopy(model.provenance)
        provenance["test_time"] = {
            "method": self.method,
            "base_weights_digest": model.backbone.weights_digest,
            **facts,
        }
        return replace(made, provenance=provenance, folder=None)


def moment_map(moments: tuple[Array, Array], target_md: Array) -> tuple[Array, Array]:
    """Return what gives target features the source's mean and deviation: ``scale_d * z + shift_d``, each feature by itself.

    Parameters
    ----------
    moments : pair of arrays of shape (d,)
        Mean and deviation of the source's features.
    target_md : array of shape (m, d)
        Features of target rows. One that never changes is moved, not stretched.

    Examples
    --------
    >>> scale, shift = moment_map((np.array([1.0]), np.array([2.0])), np.array([[0.0], [8.0]]))       # mean 4, deviation 4
    >>> scale.tolist(), shift.tolist()
    ([0.5], [-1.0])
    """
    mean_d, deviation_d = (np.asarray(part, np.float64) for part in moments)
    target = np.asarray(target_md, np.float64)
    spread_d = target.std(axis=0)
    moves_d = spread_d > 1e-6 * np.maximum(1.0, np.abs(target).max(axis=0))
    scale_d = np.where(moves_d, deviation_d / np.where(moves_d, spread_d, 1.0), 1.0)
    return scale_d, mean_d - scale_d * target.mean(axis=0)


def _plain_values(found: Features) -> Array:
    values = found.values_nd
    return np.asarray(values if values.ndim == 2 else values[:, 0], np.float64)


def _behind_map(head: Head, scale_d: Array, shift_d: Array) -> Head:
    """Return a head that answers for features z as the given one does for ``scale * z + shift``."""
    if isinstance(head, OpenSetHead):
        mapped = _behind_map(head.network, scale_d, shift_d)
        assert isinstance(mapped, NetworkHead)
        return OpenSetHead(mapped, head.task)
    module = copy.deepcopy(head.to_module())
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    first: Any = next((layer for layer in layers if not isinstance(layer, nn.Flatten | nn.Dropout | nn.Identity)), None)
    if not isinstance(first, nn.Linear):
        raise ConfigError(
            "TestTimeAdaptation: moments puts its map into the head's first layer, which has to be linear; this one is "
            f"{type(first).__name__}. Use 'adabn' or 'lame'."
        )
    weight = first.weight.detach().double().numpy()
    offset = np.zeros(len(weight)) if first.bias is None else first.bias.detach().double().numpy()
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(weight * scale_d))
        first.bias = nn.Parameter(torch.from_numpy(offset + weight @ shift_d).to(first.weight.dtype))
    return NetworkHead(nn.Sequential(*layers), len(scale_d), head.task)


def _readable(rows: Dataset, model: Model, what: str) -> Dataset:
    """Return rows without labels that can be read, or refuse."""
    if rows.modality != model.backbone.modality:
        raise DataError(
            f"TestTimeAdaptation: {model.backbone.name} reads {model.backbone.modality} rows, but the {what} are "
            f"{rows.modality} rows; give rows of the kind the model was trained on."
        )
    found = readable_rows(rows.unlabelled(), model.backbone, False, False, None)[0]
    if len(found) < 2:
        raise DataError(f"TestTimeAdaptation: needs at least two {what} that can be read; got {len(found)}.")
    return found


def _default_config(num_rows: int, seed: int) -> TrainingConfig:
    steps_an_epoch = max(1, num_rows // _BATCH)
    return TrainingConfig(
        learning_rate=1e-3,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        batch_size=_BATCH,
        max_epochs=max(1, math.ceil(_STEPS / steps_an_epoch)),
        schedule="constant",
        restore_best=False,
        seed=seed,
    )


def _batches(inputs: InputRows, seed: int, device: str) -> Iterator[tuple[Tensor, ...]]:
    """Yield all rows once, shuffled: rows often lie sorted by class, and a batch of one class has its statistics."""
    order = generator(seed, "statistics").permutation(len(inputs))
    for part in np.array_split(order, max(1, len(order) // _BATCH)):
        yield tuple(tensor.to(device) for tensor in inputs.batch(part, None))
