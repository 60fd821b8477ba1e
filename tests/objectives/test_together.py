"""What processes saw together: here threads that wait for each other, against one process that has all rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.core.errors import DataError
from headstart.core.tasks import Task
from headstart.objectives import IRM, Batch, GroupDRO, Objective, Setup, Together, VREx

DOMAINS = torch.tensor([0, 2, 0, 1, 1, 1, 0, 2])  # the first three rows are one process's, which has none of domain 1
PARTS = (slice(0, 3), slice(3, 8))
MAKERS = [lambda: GroupDRO(step=2.0), VREx, IRM]


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
    assert Together().means(torch.tensor([2.0, 9.0]), torch.tensor([1, 0])).isnan().tolist() == [False, True]


def test_means_of_parts_by_hand() -> None:
    """Part 0 has one row here and three there: (4 + 3 * 8) / 4 = 7; part 1 is there alone, part 2 nowhere."""
    means = (torch.tensor([4.0, 0.0, 0.0]), torch.tensor([8.0, 5.0, 0.0]))
    counts = (torch.tensor([1, 0, 0]), torch.tensor([3, 2, 0]))
    for found in Meeting(2).run(lambda together, rank: together.means(means[rank], counts[rank])):
        assert found[:2].tolist() == [7.0, 5.0] and bool(found[2].isnan())


@pytest.mark.parametrize("make", MAKERS, ids=["groupdro", "vrex", "irm"])
def test_two_processes_have_the_loss_and_the_gradient_of_one(make: Callable[[], Objective]) -> None:
    """Each loss times its share of the rows, as the loop does; three steps, so that what is remembered counts."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 4, dtype=torch.float64, generator=random)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    def train(together: Together, rows: slice) -> tuple[list[float], list[Tensor], list[Any]]:
        objective = make()
        objective.together = together
        objective.prepare(Setup(torch.nn.Identity(), Task("classification", ("a", "b", "c")), num_domains=3))
        losses, gradients = [], []
        for step in range(3):
            weights = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).mul(step + 1).requires_grad_()
            batch = Batch(labels=labels[rows], logits=inputs[rows] @ weights, domains=DOMAINS[rows])
            loss = objective(batch) * len(labels[rows]) / 8
            loss.backward()
            objective.after_step()
            losses.append(loss.item())
            assert weights.grad is not None
            gradients.append(weights.grad)
        return losses, gradients, [value.tolist() for value in objective.state_dict().values()]

    losses, gradients, memory = train(Together(), slice(0, 8))
    both = Meeting(2).run(lambda together, rank: train(together, PARTS[rank]))
    np.testing.assert_allclose(np.sum([found[0] for found in both], axis=0), losses, rtol=1e-6)
    for step, expected in enumerate(gradients):
        np.testing.assert_allclose(sum(found[1][step] for found in both), expected, rtol=1e-5, atol=1e-7)
    assert both[0][2] == both[1][2]
    np.testing.assert_allclose(both[0][2], memory, rtol=1e-6)
    assert float(gradients[0].abs().max()) > 1e-3


def test_a_domain_nobody_knew_is_refused_in_several_processes_too() -> None:
    objective = VREx()
    objective.prepare(Setup(torch.nn.Identity(), Task("classification", ("a", "b")), num_domains=2))
    objective.together = Together(0, 2, lambda tensor: 2 * tensor)
    batch = Batch(labels=torch.tensor([0, 1]), logits=torch.zeros(2, 2), domains=torch.tensor([0, 2]))
    with pytest.raises(DataError, match="VREx: a row comes from domain 2, but there were 2 domains"):
        objective(batch)
