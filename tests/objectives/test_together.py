"""What processes saw together: here threads that wait for each other, against one process that has all rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.core.tasks import Task
from headstart.objectives import (
    IRM,
    M3SDA,
    MDAN,
    Batch,
    BiTuning,
    DomainCORAL,
    GroupDRO,
    Objective,
    Setup,
    Together,
    VREx,
)

DOMAINS = torch.tensor([0, 2, 0, 1, 1, 1, 0, 2])  # the first three rows are one process's, which has none of domain 1
PARTS = (slice(0, 3), slice(3, 8))
OTHERS = (slice(0, 4), slice(4, 6))  # of the target: other shares than of the source
DRAWING = (
    threading.Lock()
)  # threads share torch's random numbers, and processes do not: one draws first weights at a time
MAKERS = {
    "groupdro": lambda: GroupDRO(step=2.0),
    "vrex": VREx,
    "irm": IRM,
    "domain-coral": DomainCORAL,
    "m3sda": lambda: M3SDA(num_moments=3),
    "mdan": lambda: MDAN(gamma=2.0, critic_weight=0.5, widths=(3,)),
    "bi-tuning": lambda: BiTuning(temperature=0.5, num_keys=3, width=2, momentum=0.5),
}


class Meeting:
    """Threads in the place of processes: a sum is there when all have brought their part."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier = size, threading.Barrier(size, timeout=10)
        self.brought: list[Tensor | None] = [None] * size

    def together(self, rank: int) -> Together:
        def add_up(tensor: Tensor) -> Tensor:
            self.brought[rank] = tensor
            self.barrier.wait()
            total = sum(part for part in self.brought if part is not None)
            self.barrier.wait()
            assert isinstance(total, Tensor)
            return total

        return Together(rank, self.size, add_up)

    def run(self, work: Callable[[Together, int], Any]) -> list[Any]:
        found: list[Any] = [None] * self.size

        def one(rank: int) -> None:
            found[rank] = work(self.together(rank), rank)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def test_rows_of_all_come_in_the_order_of_the_processes_and_none_is_a_number_too() -> None:
    mine = [(torch.tensor([3, 5]), torch.eye(2)), (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))]
    mine.append((torch.tensor([7]), torch.full((1, 2), 0.5)))
    for rows, values in Meeting(3).run(lambda together, rank: together.rows(*mine[rank])):
        assert rows.tolist() == [3, 5, 7] and rows.dtype == torch.int64
        assert values.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]


def test_alone_nothing_is_copied() -> None:
    rows = torch.tensor([1.0])
    assert Together().rows(rows)[0] is rows
    assert Together().whole(rows)[0] is rows


def test_whole_rows_by_hand() -> None:
    """Process 0 has 1 of 4 labelled rows and 2 of 3 others: the sum of squares sends 2 x to each row, times 4 over 1 or 3."""
    mine = (torch.tensor([3.0]), torch.tensor([1.0, -2.0, 0.5]))
    others = (torch.tensor([4.0, 5.0]), torch.tensor([6.0]))

    def work(together: Together, rank: int) -> tuple[list[float], ...]:
        rows, beside = mine[rank].requires_grad_(), others[rank].requires_grad_()
        numbers = torch.arange(len(rows))
        whole, known = together.whole(rows, numbers)
        (second,) = together.whole(beside, beside=rows)
        (whole.square().sum() + second.square().sum()).backward()
        assert rows.grad is not None and beside.grad is not None and known.dtype == torch.int64
        return whole.tolist(), second.tolist(), rows.grad.tolist(), beside.grad.tolist()

    first, second = Meeting(2).run(work)
    assert first[:2] == second[:2] == ([3.0, 1.0, -2.0, 0.5], [4.0, 5.0, 6.0])
    assert first[2:] == ([24.0], [32.0, 40.0])
    assert second[2] == pytest.approx([8 / 3, -16 / 3, 4 / 3]) and second[3] == pytest.approx([16.0])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_two_processes_have_the_loss_and_the_gradient_of_one(make: Callable[[], Objective]) -> None:
    """Each loss times its share of the rows, as the loop does; three steps, so that what is remembered counts."""
    random = torch.Generator().manual_seed(0)
    inputs, others = (torch.randn(rows, 4, dtype=torch.float64, generator=random) for rows in (8, 6))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    task = Task("classification", ("a", "b", "c"))

    def train(together: Together, rows: slice, target: slice) -> tuple[list[float], list[Tensor], list[Any]]:
        with DRAWING:
            head = torch.nn.Linear(4, 3).double()
            with torch.no_grad():
                head.weight.copy_(torch.linspace(-1, 1, 12).view(3, 4))
                head.bias.copy_(torch.tensor([0.1, 0.0, -0.1]))
            network = torch.nn.Module()
            network.segments, network.heads = torch.nn.ModuleList(), torch.nn.ModuleDict({"main": head})
            objective = make()
            objective.together = together
            objective.prepare(Setup(network, task, width=4, num_domains=3))
        objective.double()
        losses, gradients = [], []
        for step in range(3):
            weights = (torch.eye(4, dtype=torch.float64) * (step + 1)).requires_grad_()
            source_bd, target_md = inputs[rows] @ weights, others[target] @ weights + 0.5
            batch = Batch(labels[rows], features=source_bd, logits=head(source_bd), domains=DOMAINS[rows])
            batch.teacher_features = source_bd.detach() * 1.5 + 0.1
            objective.zero_grad()
            loss = objective(batch, Batch(features=target_md)) * len(labels[rows]) / 8
            loss.backward()
            objective.after_step()
            losses.append(loss.item())
            assert weights.grad is not None
            own = [parameter.grad.flatten() for parameter in objective.parameters() if parameter.grad is not None]
            gradients.append(torch.cat([weights.grad.flatten(), *own]))
        return losses, gradients, [value.tolist() for value in objective.state_dict().values()]

    losses, gradients, memory = train(Together(), slice(0, 8), slice(0, 6))
    both = Meeting(2).run(lambda together, rank: train(together, PARTS[rank], OTHERS[rank]))
    np.testing.assert_allclose(np.sum([found[0] for found in both], axis=0), losses, rtol=1e-9)
    for step, expected in enumerate(gradients):
        np.testing.assert_allclose(sum(found[1][step] for found in both), expected, rtol=1e-9, atol=1e-12)
    assert both[0][2] == both[1][2]
    for ours, theirs in zip(both[0][2], memory, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert float(gradients[-1].abs().max()) > 1e-3
