"""The training loop, the only one: steps made of phases, checks on validation rows, the best weights kept.

    step t:   for each phase, as often as it repeats:
                  outputs of the labelled rows, and of the second stream where there is one
                  loss = sum of the phase's objectives;  backward;  clip
                  the optimiser's step on the parts that the phase trains
              average <- weights

Everything random is a function of the seed, the step and the row, so a run goes on from its state bit for bit (`Run.state`, one
device). Without a time budget the learning rate follows the steps; under one it follows the share of the CPU seconds spent in
steps, or of the epochs if those end first, so that a short run is a whole run and not the torn-off beginning of a long one.
What checks do is in `checking`, what an end does in `ending`.
Use `train`. Methods configure it by objectives, phases and a plan, and never copy it.
Shapes: b rows in a batch, k outputs, n rows of a stream.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.objectives import Batch
from headstart.training.averaging import Average, moving_tensors
from headstart.training.checking import check, check_due
from headstart.training.checkpoint import Checkpoint
from headstart.training.config import TrainingConfig
from headstart.training.distributed import World
from headstart.training.ending import broken_off, finish
from headstart.training.feed import Feed, Makers
from headstart.training.history import History
from headstart.training.judge import Judge
from headstart.training.losses import Broken, Measure, spread
from headstart.training.network import Network
from headstart.training.optimiser import GroupedOptimiser
from headstart.training.phases import Phase, parameters_of, supervised_phase
from headstart.training.plan import Plan, whole_plan
from headstart.training.precision import autocast
from headstart.training.preparation import (
    loss_watch,
    open_forward,
    open_streams,
    prepare_objectives,
    trained_parameters,
)
from headstart.training.probes import set_precision
from headstart.training.rows import TrainingRows, check_rows
from headstart.training.state import State, collect_state, restore_state

__all__ = ["Run", "train"]

_TEACHER_DECAY = 0.999  # where an objective needs a teacher and no average is kept


def train(
    network: Network,
    task: Task,
    training: TrainingRows,
    validation: TrainingRows | None,
    config: TrainingConfig,
    *,
    unlabelled: TrainingRows | None = None,
    phases: Sequence[Phase] | None = None,
    plan: Plan | None = None,
    base: Network | None = None,
    source_head: nn.Module | None = None,
    checkpoint: Checkpoint | None = None,
    world: World | None = None,
    progress: Progress | None = None,
    stage: str = "train",
) -> History:
    """Train a network in place and leave it with the best weights, in evaluation mode.

    Parameters
    ----------
    network : Network
        Its logits answer the task; (b, 1) numbers in the unit of the targets for regression.
    task : Task
        Says which loss and which measure.
    training : TrainingRows
        Labelled rows to learn from.
    validation : TrainingRows, optional
        Rows that choose the weights to keep; without them the last weights stay.
    config : TrainingConfig
        How long, how fast and how.
    unlabelled : TrainingRows, optional
        A second stream: the objectives' ``target``. It may have labels.
    phases : sequence of Phase, optional
        What a step is made of; the task's own loss over everything when left out.
    plan : Plan, optional
        Which parameters train; all outside the network's frozen segments when left out.
    base : Network, optional
        As the network was before training; copied from it when left out and an objective needs it.
    source_head : nn.Module, optional
        The base model's own head, for ``base_logits``.
    checkpoint : Checkpoint, optional
        Where the state is kept; a stopped run goes on from it. Enter it as a context around this call.
    world : World, optional
        The processes that train together; those that were joined, when left out.
    progress : Progress, optional
        Gets one stage.
    stage : str
        Its name.

    Returns
    -------
    History
        Losses, measures and rates of every check, why it ended, and what a person should know.

    Raises
    ------
    TrainingError
        If a loss or gradient is not finite, or the loss explodes: step and rows are named, the network has its last good weights
        back, and the error's ``history`` tells what was before. If something frozen has changed.
    DataError
        If there are no rows to learn from, or none of a second class.
    ConfigError
        If options do not fit each other, the task or the network.
    """
    run = Run(
        network,
        task,
        training,
        validation,
        config,
        unlabelled=unlabelled,
        phases=phases,
        plan=plan,
        base=base,
        source_head=source_head,
        world=world,
    )
    with (progress or Progress(quiet=True)).stage(stage) as shown, run.random_numbers():
        known = checkpoint.load() if checkpoint is not None else None
        if known is not None:
            run.restore(*known)
        while run.ended() is None:
            shown.advance(run.step())
            if checkpoint is not None:
                checkpoint.after_step(run.done, run.state)
        history = run.finish()
        shown.note = f"{history.epochs:.1f} epochs, stopped by {history.stopped}"
    return history


class Run:
    """One training between two steps; see `train` for the arguments.

    `step` until `ended`, then `finish`, all within `random_numbers`. Between steps `state` is complete: `restore` in a new run
    made from the same arguments goes on bit for bit.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        training: TrainingRows,
        validation: TrainingRows | None,
        config: TrainingConfig,
        *,
        unlabelled: TrainingRows | None = None,
        phases: Sequence[Phase] | None = None,
        plan: Plan | None = None,
        base: Network | None = None,
        source_head: nn.Module | None = None,
        world: World | None = None,
    ) -> None:
        self.network, self.task, self.config = network.to(memory_format=torch.channels_last), task, config
        self.training, self.world = training, world or World.current()
        self.history, self.precision = History(), ""
        labelled = phases is None or any("labels" in phase.needs for phase in phases)
        self.history.notes += check_rows(task, training, validation, labelled)
        self.phases = tuple(phases or (supervised_phase(task, config, cast(Any, training.chosen)),))
        self.needs = frozenset[str]().union(*(phase.needs for phase in self.phases))
        self.objectives = list(dict.fromkeys(item for phase in self.phases for item in phase.objectives))
        self.source, self.target = open_streams(task, training, unlabelled, self.phases, config, self.history.notes)
        self.num_batches = max(item.num_batches for item in (self.source, self.target) if item is not None)
        self.total = config.max_epochs * self.num_batches
        self.plan = plan or whole_plan(network)
        self.plan.carry_out(network)
        self.forward = open_forward(network, task, config, self._autocast, self.needs, base, source_head)
        prepare_objectives(self.forward, self.objectives, self.source, self.target, self.world)
        self.optimiser = GroupedOptimiser(self.plan, trained_parameters(network, self.plan, self.objectives), config)
        self.parts = [parameters_of(phase, network, self.optimiser.parameters) for phase in self.phases]
        self._average()
        self.frozen_digest = network.frozen_digest() if network.frozen_names else ""
        self.history.frozen_digest, self.history.batch_size = self.frozen_digest, self.source.batch_size
        self.moving = moving_tensors(network)
        self.kept = {name: tensor.clone() for name, tensor in self.judged().items()}
        self.scaler = torch.amp.GradScaler(self.forward.device.type, enabled=config.precision == "fp16")
        every_step = self.forward.device.type == "cpu" or self.world.size > 1
        self.watch = loss_watch(self.phases, task, self.source, every_step)
        self.measure = Measure(task, spread(task, training.chosen))
        self.done, self.spent, self.checking, self.last_check = 0, 0.0, 0.0, 0.0
        self.waited, self.waited_earlier, self.began = 0.0, 0.0, time.perf_counter()
        self.best_loss = math.inf
        again = sum(phase.repeats for phase in self.phases) > 1
        self.feed = Feed(self.forward, config, self.world, self.source, self.target, self.needs, again)
        self.judge = None if validation is None else Judge(validation, config.validation_rows, self.forward, self.world)
        network.eval()  # so that the first step sets training mode, and evaluation mode where something rests

    def _average(self) -> None:
        """Make the averaged network where one is configured, or an objective learns from it."""
        config = self.config
        taught = any(need.startswith("teacher_") for need in self.needs)
        self.decay = config.ema or (_TEACHER_DECAY if taught else 0.0)
        self.follower = Average(self.network) if self.decay else None
        self.swa = Average(self.network) if config.swa else None
        if self.follower is not None and taught:
            self.forward.teacher = self.follower.network

    def judged(self) -> dict[str, Tensor]:
        """Return the tensors that are validated and kept: the average where one is configured."""
        return self.follower.tensors if self.follower is not None and self.config.ema else self.moving

    @contextlib.contextmanager
    def random_numbers(self) -> Iterator[None]:
        """Leave torch's random numbers and threads as they were afterwards."""
        before = torch.get_num_threads()
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        try:
            with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
                yield
        finally:
            if self.config.threads:
                torch.set_num_threads(before)

    def share(self) -> float:
        """Return how much of the training is done: of the steps, or of the budget where that is more."""
        return max(self.done / self.total, self.spent_share)

    @property
    def spent_share(self) -> float:
        """How much of the budget is spent, the same in every process; 0 where there is none."""
        return max(self.spent / self.config.cpu_seconds, self.waited / self.config.wall_seconds)

    def ended(self) -> str | None:
        """Return why there is no further step: ``"epochs"``, ``"budget"`` or ``"patience"``; ``None`` where there is one."""
        history = self.history
        if self.spent_share >= 1:
            return "budget"
        if history.best >= 0 and len(history.validation_loss) - 1 - history.best >= self.config.patience:
            return "patience"
        return "epochs" if self.done >= self.total else None

    def step(self) -> int:
        """Do one step, and the check that may be due after it; return the number of labelled rows it took.

        Raises
        ------
        TrainingError
            If a loss cannot be believed.
        """
        if not self.precision:
            set_precision(self)
        started = time.process_time()
        if self.optimiser.set_rate(self.share()):
            self.network.settle()
            self.network.train()
        elif not self.network.training:
            self.network.train()
        self.forward.share = min(1.0, self.share())
        self._seed(derive_seed(self.config.seed, "step", self.done, *self.world.seed_part))
        try:
            rows = self._phases()
        except Broken as broken:
            raise broken_off(self, broken) from None
        for objective in self.objectives:
            objective.after_step()
        self.done += 1
        if self.follower is not None:
            self.follower.follow(self.decay, self.done)
        self.history.steps, self.history.epochs = self.done, self.done / self.num_batches
        waited = self.waited_earlier + time.perf_counter() - self.began
        spent, waited = self.world.sums([time.process_time() - started, waited])
        self.spent, self.waited = self.spent + spent, waited / self.world.size
        over = self.done % self.num_batches == 0
        if self.swa is not None and over and self.share() > self.config.swa:
            self.swa.include()
        if check_due(self, over):
            try:
                check(self)
            except Broken as broken:
                raise broken_off(self, broken) from None
        return rows

    def _seed(self, seed: int) -> None:
        """Seed the device in use alone: `torch.manual_seed` notes every call for GPUs that may come to be used."""
        torch.default_generator.manual_seed(seed)
        if self.forward.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _phases(self) -> int:
        source, target = self.feed.pieces(self.done)
        terms: list[Tensor | float] = []
        norms: list[Tensor] = []
        for phase, part in zip(self.phases, self.parts, strict=True):
            values: list[Tensor | float] = []
            for repeat in range(phase.repeats):
                self.optimiser.clear()
                watched = not terms and repeat == 0
                values = self._losses(phase, part, source, target, watched)
                if not self._finite(values):
                    values = [*terms, *values, *([0.0] * (len(self.watch.names) - len(terms) - len(values)))]
                    self.watch.add(self.done, self.source.at(self.done).positions, values, None)
                norm = self._take_step(phase)
                if norm is not None:
                    norms.append(norm)
            terms += values
        norm = None if not norms else norms[0] if len(norms) == 1 else torch.stack(norms).max()
        sample = self.source.at(self.done)
        self.watch.add(self.done, sample.positions, terms, norm)
        return len(sample)

    def _finite(self, values: list[Tensor | float]) -> bool:
        """Whether to go on to the optimiser's step; on a GPU this is looked at later, which does not make it wait."""
        return any(isinstance(value, Tensor) and value.device.type != "cpu" for value in values) or all(
            math.isfinite(float(value)) for value in values
        )

    def _losses(
        self,
        phase: Phase,
        part: list[nn.Parameter] | None,
        source: Makers,
        target: Makers,
        watched: bool,
    ) -> list[Tensor | float]:
        """Compute a phase's objectives and their gradients; return their values over the whole batch."""
        heads_only = not any(name.startswith("segments") for name in phase.trains)
        total = len(self.source.at(self.done))
        sums: list[Tensor | float] = [0.0] * len(phase.objectives)
        for number in range(len(source)):
            seen, here = Batch(), total
            if "source" in phase.streams:
                piece = source[number]()
                here = len(piece.sample)
                with self.world.global_statistics():
                    seen = self.forward.batch(piece, phase.needs, heads_only)
                if watched and seen.logits is not None and seen.labels is not None:
                    self.measure.add(seen.logits.detach(), seen.labels)
            other = None
            if target and "target" in phase.streams:
                piece = target[number]()
                if "source" not in phase.streams:
                    assert self.target is not None
                    here, total = len(piece.sample), len(self.target.at(self.done))
                with self.world.global_statistics():
                    other = self.forward.batch(piece, phase.needs, heads_only)
            terms = [objective(seen, other) for objective in phase.objectives]
            loss = _sum(terms)
            weight = here / total
            loss = loss if weight == 1 else loss * weight
            loss = self.scaler.scale(loss) if self.scaler.is_enabled() else loss
            wanted = None if part is None else [item for item in part if item.requires_grad]
            if loss.requires_grad and wanted != []:
                loss.backward(inputs=wanted)  # type: ignore[no-untyped-call]
            sums = [
                term.detach() if weight == 1 else old + term.detach() * weight
                for old, term in zip(sums, terms, strict=True)
            ]
        if self.world.size > 1:
            shares = self.world.sum_gradients(self.optimiser.parameters.values(), [float(value) for value in sums])
            return list(shares)
        return sums

    def _take_step(self, phase: Phase) -> Tensor | None:
        if not self.scaler.is_enabled():
            norm = self.optimiser.clip()
            if norm is not None and norm.device.type == "cpu" and not math.isfinite(float(norm)):
                names = ", ".join(type(item).__name__ for item in phase.objectives)
                what = f"the gradient of {phase.name} ({names}) is {float(norm)}"
                raise Broken(self.done, self.source.at(self.done).positions, what)
            self.optimiser.step()
            return norm
        self.scaler.unscale_(self.optimiser.torch)
        self.optimiser.clip()  # an infinite gradient is no error here: the scaler leaves the step out
        self.scaler.step(self.optimiser.torch)
        self.scaler.update()
        return None

    def finish(self) -> History:
        """Put the weights to keep into the network, and prove that nothing frozen has changed.

        Raises
        ------
        TrainingError
            If something frozen has changed.
        """
        return finish(self)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision in {"fp32", ""}:
            return contextlib.nullcontext()
        return autocast(self.precision, self.forward.device)

    def state(self) -> State:
        """Return everything that `restore` needs: tensors by name, and a JSON value."""
        return collect_state(self)

    def restore(self, tensors: dict[str, Tensor], value: dict[str, Any]) -> None:
        """Go on from what `state` gave; refuses the state of another network or of other options with a `TrainingError`."""
        restore_state(self, tensors, value)


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
