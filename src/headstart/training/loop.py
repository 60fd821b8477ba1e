"""The training loop, the only one: steps made of phases, checks on validation rows, the best weights kept.

    step t:   for each phase, as often as it repeats:
                  outputs of the labelled rows, and of the second stream where there is one
                  loss = sum of the phase's objectives;  backward;  clip
                  the optimiser's step on the parts that the phase trains
              average <- weights

Everything random is a function of the seed, the step and the row, so a run goes on from its state bit for bit (`Run.state`, one
device). Without a time budget the learning rate follows the steps; under one it follows the share of the CPU seconds spent in
steps, or of the epochs if those end first, so that a short run is a whole run and not the torn-off beginning of a long one.
Checks are not charged to the budget.
Use `train`. Methods configure it by objectives, phases and a plan, and never copy it.
Shapes: b rows in a batch, k outputs, n rows of a stream.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.core.errors import ConfigError, DataError, TrainingError
from headstart.core.progress import Progress
from headstart.core.seeds import derive_seed
from headstart.core.tasks import Task
from headstart.objectives import Batch, Setup
from headstart.training.averaging import Average, moving_tensors, recompute_statistics
from headstart.training.checkpoint import Checkpoint
from headstart.training.config import TrainingConfig
from headstart.training.distributed import World
from headstart.training.forward import Forward, Piece
from headstart.training.history import History
from headstart.training.losses import Broken, LossWatch, Measure, target_tensor, validation_loss
from headstart.training.mixing import draw_mix
from headstart.training.network import Network, Output
from headstart.training.optimiser import GroupedOptimiser
from headstart.training.phases import Phase, supervised_phase
from headstart.training.plan import Plan, whole_plan
from headstart.training.precision import autocast, choose_precision
from headstart.training.rate_finder import RateSweep, find_learning_rate
from headstart.training.rows import TrainingRows
from headstart.training.sampler import Stream

__all__ = ["Run", "train"]

_TEACHER_DECAY = 0.999  # where an objective needs a teacher and no average is kept
_PROBE_PAYS = 100  # steps; choosing the precision costs about ten
_CHECK_ROWS = 32

State = tuple[dict[str, Tensor], dict[str, Any]]


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
        The processes that train together.
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
        self.training, self.validation, self.world = training, validation, world or World()
        self.history = History()
        _check_rows(task, training, validation, phases, self.history.notes)
        self.phases = tuple(phases or (supervised_phase(task, config, cast(Any, training.chosen)),))
        self.needs = frozenset[str]().union(*(phase.needs for phase in self.phases))
        self.objectives = list(dict.fromkeys(item for phase in self.phases for item in phase.objectives))
        self._open_streams(unlabelled)
        self.plan = plan or whole_plan(network)
        self.plan.carry_out(network)
        self._see(base, source_head)
        self._prepare(source_head)
        self.optimiser = GroupedOptimiser(self.plan, self._parameters(), config)
        self.parts = [self._part(phase) for phase in self.phases]
        self._average()
        self.frozen_digest = network.frozen_digest() if network.frozen_names else ""
        self.history.frozen_digest, self.history.batch_size = self.frozen_digest, self.source.batch_size
        self.moving = moving_tensors(network)
        self.kept = {name: tensor.clone() for name, tensor in self._judged().items()}
        self.scaler = torch.amp.GradScaler(self.forward.device.type, enabled=config.precision == "fp16")
        self.watch = self._watch()
        self.measure = Measure(task, _spread(task, training.chosen))
        self.done, self.spent, self.checking, self.last_check = 0, 0.0, 0.0, 0.0
        self.best_loss = math.inf
        self.precision = ""
        self._passes = sum(phase.repeats for phase in self.phases)

    def _open_streams(self, unlabelled: TrainingRows | None) -> None:
        config, notes = self.config, self.history.notes
        balanced = config.balance == "sampling"
        if balanced and self.task.kind != "classification":
            raise ConfigError("train: balance='sampling' needs one class for each row; use 'loss', or 'none'.")
        self.source = Stream(self.training, config.batch_size, seed=config.seed, purpose="order", balanced=balanced)
        if self.source.batch_size < config.batch_size:
            notes.append(
                f"batch_size {config.batch_size} is more than there are training rows; "
                f"every step takes all {self.source.batch_size}"
            )
        self.target: Stream | None = None
        if unlabelled is not None:
            if not len(unlabelled):
                raise DataError("train: the second stream has no rows; leave it out.")
            self.target = Stream(unlabelled, config.batch_size, seed=config.seed, purpose="second order")
        self.num_batches = max(stream.num_batches for stream in (self.source, self.target) if stream is not None)
        self.total = config.max_epochs * self.num_batches

    def _see(self, base: Network | None, source_head: nn.Module | None) -> None:
        """Make what runs networks; copy the base model where an objective needs it."""
        config = self.config
        if any(need.startswith("base_") for need in self.needs) and base is None:
            base = self.network.twin()
        if "base_logits" in self.needs and source_head is None:
            raise ConfigError(
                "train: an objective needs the answers of the base model's own head, which is not known; give source_head, or "
                "choose a base model that has one."
            )
        self.forward = Forward(self.network, self.task, self._autocast, base, source_head)
        device = self.forward.device
        if config.precision == "fp16" and device.type != "cuda":
            raise ConfigError("TrainingConfig: precision 'fp16' needs a GPU; use 'bf16' or 'fp32'.")
        if config.cutmix and self.network.start > 0:
            raise ConfigError(
                f"train: cutmix pastes boxes into raw images, but these rows are activations after "
                f"{self.network.names[self.network.start - 1]!r}; use mixup, or train from raw images."
            )
        for module in (base, source_head, *self.objectives):
            if module is not None:
                module.to(device)
        if config.compile:
            self.forward.suffix = cast(Callable[..., Output], torch.compile(self.network.suffix))

    def _prepare(self, source_head: nn.Module | None) -> None:
        def base_logits() -> NDArray[np.float32]:
            batches = self.forward.source_logits(self.source, self.forward.base or self.network.twin(), _CHECK_ROWS)
            return np.concatenate(list(batches))

        setup = Setup(self.network, self.task, self.training.chosen, None if source_head is None else base_logits)
        for objective in self.objectives:
            objective.prepare(setup)
            objective.train()
        self.network.settle()  # an objective may have put other layers in

    def _parameters(self) -> dict[str, nn.Parameter]:
        """Return what trains: the network's parameters as planned, and the objectives' own."""
        network = dict(self.network.named_parameters())
        chosen = {name: network[name] for group in self.plan.groups for name in group.names}
        theirs = {id(parameter) for parameter in network.values()}
        for number, objective in enumerate(self.objectives):
            for name, parameter in objective.named_parameters():
                if parameter.requires_grad and id(parameter) not in theirs:
                    chosen[f"objectives.{number}.{name}"] = parameter
        return chosen

    def _part(self, phase: Phase) -> list[nn.Parameter] | None:
        """Return the parameters that a phase trains; ``None`` for all of them."""
        starts = []
        for part in phase.trains:
            kind, _, name = part.partition(".")
            if name and kind == "segments":
                if name not in self.network.names:
                    raise ConfigError(
                        f"Phase {phase.name!r}: the network has no segment {name!r}; it has {', '.join(self.network.names)}."
                    )
                starts.append(f"segments.{self.network.names.index(name)}.")
            elif name and kind == "heads" and name not in self.network.heads:
                raise ConfigError(
                    f"Phase {phase.name!r}: the network has no head {name!r}; it has {', '.join(self.network.heads)}."
                )
            else:
                starts.append(f"{part}.")
        chosen = {name: item for name, item in self.optimiser.parameters.items() if name.startswith(tuple(starts))}
        if not chosen:
            raise ConfigError(
                f"Phase {phase.name!r}: trains {', '.join(phase.trains)}, where the plan lets nothing train."
            )
        return None if len(chosen) == len(self.optimiser.parameters) else list(chosen.values())

    def _average(self) -> None:
        """Make the averaged network where one is configured, or an objective learns from it."""
        config = self.config
        taught = any(need.startswith("teacher_") for need in self.needs)
        self.decay = config.ema or (_TEACHER_DECAY if taught else 0.0)
        self.follower = Average(self.network) if self.decay else None
        self.swa = Average(self.network) if config.swa else None
        if self.follower is not None and taught:
            self.forward.teacher = self.follower.network

    def _judged(self) -> dict[str, Tensor]:
        """Return the tensors that are validated and kept: the average where one is configured."""
        return self.follower.tensors if self.follower is not None and self.config.ema else self.moving

    def _watch(self) -> LossWatch:
        names = list[str]()
        for phase in self.phases:
            for objective in phase.objectives:
                name = f"{phase.name}.{type(objective).__name__}"
                names.append(name if name not in names else f"{name} {len(names) + 1}")
        every_step = self.forward.device.type == "cpu" or self.world.size > 1
        return LossWatch(names, len(self.phases[0].objectives), _chance(self.task, self.training.chosen), every_step)

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
        return max(self.done / self.total, self.spent / self.config.cpu_seconds)

    def ended(self) -> str | None:
        """Return why there is no further step: ``"epochs"``, ``"budget"`` or ``"patience"``; ``None`` where there is one."""
        history = self.history
        if self.spent >= self.config.cpu_seconds:
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
            self._choose_precision()
        started = time.process_time()
        if self.optimiser.set_rate(self.share()):
            self.network.settle()
            self.network.train()
        elif not self.network.training:
            self.network.train()
        torch.manual_seed(derive_seed(self.config.seed, "step", self.done, *self.world.seed_part))
        try:
            rows = self._phases()
        except Broken as broken:
            raise self._broken(broken) from None
        for objective in self.objectives:
            objective.after_step()
        self.done += 1
        if self.follower is not None:
            self.follower.follow(self.decay, self.done)
        self.history.steps, self.history.epochs = self.done, self.done / self.num_batches
        self.spent += self.world.sums([time.process_time() - started])[0]
        over = self.done % self.num_batches == 0
        if self.swa is not None and over and self.share() > self.config.swa:
            self.swa.include()
        if self._check_due(over):
            try:
                self._check()
            except Broken as broken:
                raise self._broken(broken) from None
        return rows

    def _check_due(self, over: bool) -> bool:
        """A check comes at the end of an epoch while checks are cheap, and five times over a budget."""
        if math.isinf(self.config.cpu_seconds):
            return over
        if self.spent >= self.config.cpu_seconds or self.done >= self.total:
            return True
        cheap = over and self.checking <= 0.25 * self.spent
        return cheap or self.spent - self.last_check >= self.config.cpu_seconds / 5

    def _phases(self) -> int:
        source, target = self._pieces()
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
                norm = self._take_step()
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

    def _pieces(self) -> tuple[Sequence[Callable[[], Piece]], Sequence[Callable[[], Piece]]]:
        """Return both streams' rows of this step, in pieces that are made when first asked for."""
        config = self.config
        whole = self.source.at(self.done)
        mix = draw_mix(config, self.done, len(whole))
        sizes = [len(whole)] if self.target is None else [len(whole), len(self.target.at(self.done))]
        pieces = max(1, min(config.accumulate, min(sizes) // self.world.size))
        source = [self._maker(self.source, part, mix) for part in self._split(sizes[0], pieces)]
        if self.target is None:
            return source, ()
        return source, [self._maker(self.target, part, None) for part in self._split(sizes[1], pieces)]

    def _split(self, num_rows: int, pieces: int) -> list[NDArray[np.int64] | None]:
        """Return which rows of a batch this process takes in each piece; ``None`` for all of them."""
        if self.world.size == 1 and pieces == 1:
            return [None]
        return list(np.array_split(self.world.shard(np.arange(num_rows)), pieces))

    def _maker(self, stream: Stream, part: NDArray[np.int64] | None, mix: Any) -> Callable[[], Piece]:
        """Return what gives a piece; it is kept where more than one phase looks at it."""
        known: list[Piece] = []

        def make() -> Piece:
            if known:
                return known[0]
            piece = self.forward.piece(stream, stream.at(self.done), part, mix, self.needs)
            if self._passes > 1:
                known.append(piece)
            return piece

        return make

    def _losses(
        self,
        phase: Phase,
        part: list[nn.Parameter] | None,
        source: Sequence[Callable[[], Piece]],
        target: Sequence[Callable[[], Piece]],
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
            if loss.requires_grad:
                wanted = None if part is None else [item for item in part if item.requires_grad]
                loss.backward(inputs=wanted)  # type: ignore[no-untyped-call]
            sums = [
                term.detach() if weight == 1 else old + term.detach() * weight
                for old, term in zip(sums, terms, strict=True)
            ]
        if self.world.size > 1:
            shares = self.world.sum_gradients(self.optimiser.parameters.values(), [float(value) for value in sums])
            return list(shares)
        return sums

    def _take_step(self) -> Tensor | None:
        if not self.scaler.is_enabled():
            norm = self.optimiser.clip()
            if norm is not None and norm.device.type == "cpu" and not math.isfinite(float(norm)):
                raise Broken(self.done, self.source.at(self.done).positions, f"the gradient is {float(norm)}")
            self.optimiser.step()
            return norm
        self.scaler.unscale_(self.optimiser.torch)
        self.optimiser.clip()  # an infinite gradient is no error here: the scaler leaves the step out
        self.scaler.step(self.optimiser.torch)
        self.scaler.update()
        return None

    @torch.no_grad()
    def _check(self) -> None:
        """Write down where the run is, judge it on validation rows, and keep the weights if they are good."""
        history, started = self.history, time.process_time()
        means = self.watch.means()
        history.train_loss.append(sum(means))
        for name, value in zip(self.watch.names, means, strict=True):
            history.losses.setdefault(name, []).append(value)
        history.train_measure.append(self._train_measure())
        history.rates.append(self.config.learning_rate * self.optimiser.share(self.share()))
        history.check_epochs.append(history.epochs)
        averaged = self.follower is not None and bool(self.config.ema)
        judged = self.follower.network if self.follower is not None and averaged else self.network
        good = True
        if self.validation is not None:
            loss, measure = self._validate(judged)
            history.validation_loss.append(loss)
            history.validation_measure.append(measure)
            if loss < self.best_loss:
                self.best_loss, history.best = loss, len(history.validation_loss) - 1
            elif self.config.restore_best:
                good = False
        if good:
            for name, tensor in self._judged().items():
                self.kept[name].copy_(tensor)
        self.last_check = self.spent
        self.checking += self.world.sums([time.process_time() - started])[0]
        history.cpu_seconds = self.spent

    def _train_measure(self) -> float:
        measure = self.measure
        measure.collect()
        if self.world.size > 1:
            measure.good, count = self.world.sums([measure.good, float(measure.count)])
            measure.count = int(count)
        value = measure.value
        measure.reset()
        return value

    @torch.no_grad()
    def _validate(self, network: Network) -> tuple[float, float]:
        """Return loss and measure of the validation rows."""
        assert self.validation is not None and self.validation.targets is not None
        network.eval()
        rows = self.validation.indices[: self.config.validation_rows]
        mine = self.world.shard(rows) if len(rows) >= self.world.size else rows
        inputs = self.validation.inputs
        outputs = [
            self.forward.outputs(network, inputs.batch(mine[first : first + _CHECK_ROWS], None))
            for first in range(0, len(mine), _CHECK_ROWS)
        ]
        output_nk = torch.cat(outputs)
        if len(mine) < len(rows):
            output_nk = self.world.gather(output_nk, len(rows))
        output_nk = output_nk.cpu()
        truth = self.validation.targets[rows]
        targets = target_tensor(self.task, truth)
        assert targets is not None
        measure = Measure(self.task, _spread(self.task, truth))
        measure.add(output_nk, targets)
        return validation_loss(self.task, output_nk, targets), measure.value

    def finish(self) -> History:
        """Put the weights to keep into the network, and prove that nothing frozen has changed.

        Raises
        ------
        TrainingError
            If something frozen has changed.
        """
        history, network = self.history, self.network
        history.stopped = self.ended() or "epochs"
        try:
            self.watch.collect()
        except Broken as broken:
            raise self._broken(broken) from None
        if self.swa is not None:
            self._finish_average()
        elif self.config.restore_best and history.best >= 0:
            self._put(self.kept, "best")
        elif self.config.ema:
            self._put(self._judged(), "average")
        network.eval()
        history.cpu_seconds, history.precision = self.spent, self.precision or "fp32"
        if network.frozen_names and network.frozen_digest() != self.frozen_digest:
            raise TrainingError(
                "train: something frozen has changed during training; an objective or a layer writes where it must not. "
                "The network is not to be trusted; train again without it."
            )
        self.world.check_same(self.moving)
        return history

    def _finish_average(self) -> None:
        """Take the equal average of the late weights, unless the best of the checks was better."""
        assert self.swa is not None
        history = self.history
        best = history.best >= 0 and self.config.restore_best
        if not self.swa.count:
            history.notes.append("training ended before the weights were averaged; none are")
            if best:
                self._put(self.kept, "best")
            return
        self._put(self.swa.tensors, "average")
        stream = self.source
        recompute_statistics(self.network, lambda: self._inputs(stream))
        if self.validation is None:
            return
        loss, measure = self._validate(self.network)
        if best and not loss <= self.best_loss:
            self._put(self.kept, "best")
            history.notes.append(
                f"the average of {self.swa.count} epochs' weights has a validation loss of {loss:.4g}, more than the best "
                f"check's {self.best_loss:.4g}; the best weights are kept"
            )
            return
        history.notes.append(
            f"the average of {self.swa.count} epochs' weights is kept: validation loss {loss:.4g}, measure {measure:.4g}"
        )

    def _inputs(self, stream: Stream) -> Iterator[tuple[Tensor, ...]]:
        for number in range(stream.num_batches):
            sample = stream.at(self.done + number)
            rows = stream.rows.inputs.batch(stream.indices(sample), stream.draws(sample))
            yield self.forward.on_device(rows)

    @torch.no_grad()
    def _put(self, tensors: dict[str, Tensor], kept: str) -> None:
        for name, tensor in tensors.items():
            self.moving[name].copy_(tensor)
        self.history.kept = kept

    def _broken(self, broken: Broken) -> TrainingError:
        """Put the last good weights back and return the error that says what happened where."""
        self._put(self.kept, "best" if self.history.best >= 0 and self.config.restore_best else "last")
        self.network.eval()
        history = self.history
        history.stopped, history.cpu_seconds, history.precision = "error", self.spent, self.precision or "fp32"
        indices = self.training.indices[broken.positions]
        rows = ", ".join(self.training.name(int(index)) for index in indices[:8])
        more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
        back = "its last good weights" if history.train_loss else "the weights it began with"
        error = TrainingError(
            f"train: {broken.what} at step {broken.step + 1} (learning rate {self.config.learning_rate:g}), rows {rows}{more}; "
            f"look at these rows, or take a lower learning_rate. The network has {back} back."
        )
        error.history = history
        return error

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision in {"fp32", ""}:
            return contextlib.nullcontext()
        return autocast(self.precision, self.forward.device)

    def _choose_precision(self) -> None:
        """Take the configured precision, or measure a step where the training is long enough for that to pay."""
        wanted = self.config.precision
        if wanted != "auto":
            self.precision = wanted
        elif self.total < _PROBE_PAYS:
            self.precision = "fp32"
        else:
            made = self.world.hand_out(lambda: ({}, {"precision": self._measured_precision()}))
            assert made is not None
            self.precision = str(made[1]["precision"])
        self.history.precision = self.precision

    def _measured_precision(self) -> str:
        key = {"rows": self.source.batch_size, "phases": [sorted(phase.needs) for phase in self.phases]}
        self.network.train()
        choice = choose_precision(self.network, lambda: self.loss_at(0), key=key, device=self.forward.device)
        if choice.precision != "fp32":
            self.history.notes.append(f"trained in {choice.precision}: {choice.reason}")
        return choice.precision

    def loss_at(self, step: int) -> Tensor:
        """Return the first phase's loss on the rows of a step, with its graph; nothing is changed but running statistics."""
        phase = self.phases[0]
        mix = draw_mix(self.config, step, len(self.source.at(step)))
        seen, other = Batch(), None
        if "source" in phase.streams:
            piece = self.forward.piece(self.source, self.source.at(step), None, mix, self.needs)
            seen = self.forward.batch(piece, phase.needs, False)
        if self.target is not None and "target" in phase.streams:
            piece = self.forward.piece(self.target, self.target.at(step), None, None, self.needs)
            other = self.forward.batch(piece, phase.needs, False)
        modes = [objective.training for objective in phase.objectives]
        for objective in phase.objectives:
            objective.eval()  # queues and running figures stay as they are
        loss = _sum([objective(seen, other) for objective in phase.objectives])
        for objective, mode in zip(phase.objectives, modes, strict=True):
            objective.train(mode)
        return loss

    def find_rate(self, *, lowest: float = 1e-7, highest: float = 1.0, num_steps: int = 100) -> RateSweep:
        """Return the first phase's losses along rising learning rates; the network is left as it was."""
        if not self.precision:
            self._choose_precision()
        self.optimiser.set_rate(0.0)
        self.network.train()

        def make() -> torch.optim.Optimizer:
            self.optimiser.set_rate(self.config.warm_up if self.config.warm_up is not None else 0.3)
            return GroupedOptimiser(self.plan, self.optimiser.parameters, self.config).torch

        with self.random_numbers():
            return find_learning_rate(
                [self.network, *self.objectives],
                self.loss_at,
                make,
                lowest=lowest,
                highest=highest,
                num_steps=num_steps,
                clip=self.config.clip,
            )

    def state(self) -> State:
        """Return everything that `restore` needs: tensors by name, and a JSON value."""
        tensors = {f"network/{name}": tensor for name, tensor in self.moving.items()}
        tensors |= {f"optimiser/{name}": tensor for name, tensor in self.optimiser.state().items()}
        tensors |= {f"kept/{name}": tensor for name, tensor in self.kept.items()}
        for number, objective in enumerate(self.objectives):
            tensors |= {f"objectives/{number}/{name}": tensor for name, tensor in objective.state_dict().items()}
        for place, average in (("follower", self.follower), ("swa", self.swa)):
            if average is not None:
                tensors |= {f"{place}/{name}": tensor for name, tensor in average.tensors.items()}
        self.measure.collect()
        value = {
            "done": self.done,
            "spent": self.spent,
            "checking": self.checking,
            "last_check": self.last_check,
            "best_loss": self.best_loss,
            "precision": self.precision,
            "history": self.history.to_dict(),
            "watch": self.watch.state(),
            "measure": [self.measure.good, self.measure.count],
            "averaged": 0 if self.swa is None else self.swa.count,
            "scaler": self.scaler.state_dict(),
            "resting": sorted(name for name, item in self.optimiser.parameters.items() if not item.requires_grad),
        }
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}, value

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], value: dict[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises
        ------
        TrainingError
            If it is the state of another network or other objectives.
        """
        places = {"network": self.moving, "kept": self.kept}
        places |= {name: item.tensors for name, item in (("follower", self.follower), ("swa", self.swa)) if item}
        for place, mine in places.items():
            theirs = _under(tensors, place)
            if theirs.keys() != mine.keys():
                raise TrainingError(
                    f"train: the stored state has other tensors under {place!r} than this run; train with the network, plan and "
                    "options it began with."
                )
            for name, tensor in theirs.items():
                mine[name].copy_(tensor)
        for number, objective in enumerate(self.objectives):
            objective.load_state_dict(_under(tensors, f"objectives/{number}"))
        self.optimiser.restore(_under(tensors, "optimiser"))
        self.done, self.spent, self.checking = value["done"], value["spent"], value["checking"]
        self.last_check, self.best_loss, self.precision = value["last_check"], value["best_loss"], value["precision"]
        self.history = History.from_dict(value["history"])
        self.watch.restore(value["watch"])
        self.measure.good, self.measure.count = value["measure"]
        if self.swa is not None:
            self.swa.count = value["averaged"]
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(value["scaler"])


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _under(tensors: dict[str, Tensor], place: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{place}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{place}/")}


def _check_rows(
    task: Task,
    training: TrainingRows,
    validation: TrainingRows | None,
    phases: Sequence[Phase] | None,
    notes: list[str],
) -> None:
    """Refuse rows that nothing can be learned from, and note classes that occur nowhere."""
    if not len(training):
        raise DataError("train: there are no rows to learn from; give at least one.")
    if validation is not None and (not len(validation) or validation.targets is None):
        raise DataError("train: validation rows need to exist and to have labels; leave them out instead.")
    targets = training.chosen
    if targets is None:
        if phases is None or any("labels" in phase.needs for phase in phases):
            raise DataError("train: the rows to learn from have no labels; give those without as the second stream.")
        return
    if task.kind == "classification":
        counts = np.bincount(targets.astype(np.int64), minlength=task.num_outputs)
        if len(counts) > task.num_outputs or targets.min() < 0:
            raise DataError(
                f"train: class numbers lie in 0..{task.num_outputs - 1}; got {targets.min()} to {targets.max()}."
            )
        if (counts > 0).sum() < 2:
            raise DataError("train: needs rows of at least two classes to tell apart; add rows of another class.")
    elif task.kind == "multilabel":
        counts = targets.astype(np.int64).sum(0)
    else:
        return
    absent = [name for name, count in zip(task.classes, counts, strict=True) if not count]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        notes.append(f"no training row has the class {shown}: it cannot be learned and will not be predicted")


def _spread(task: Task, targets: NDArray[Any] | None) -> float:
    return float(np.var(targets)) if task.kind == "regression" and targets is not None else 0.0


def _chance(task: Task, targets: NDArray[Any] | None) -> float:
    """Return what guessing costs."""
    if task.kind == "regression":
        return _spread(task, targets)
    return math.log(max(2, task.num_outputs)) if task.kind == "classification" else math.log(2)
