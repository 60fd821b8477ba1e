"""Centred kernel alignment: do two representations of the same rows tell the rows apart in the same way?

    CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))       K, L: kernels between the rows under X and under Y
    linear    : |Y_c' X_c|_F^2 / (|X_c' X_c|_F |Y_c' Y_c|_F)    Gaussian: k(x, x') = exp(-|x - x'|^2 / (2 f m)), m: median
    HSIC, biased  : tr(K H L H),  H = I - 1 1' / n
    HSIC, debiased: (tr K~L~ + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2 1'K~L~1 / (n-2)),  diagonals of K~, L~ set to 0

Source: Kornblith, Norouzi, Lee & Hinton, "Similarity of neural network representations revisited", ICML 2019 (arXiv:1905.00414),
section 3; the unbiased HSIC is Song et al., "Feature selection via dependence maximization", JMLR 2012. Unit: none.
Use it to compare layers, or a backbone before and after training, on the *same* rows (not source with target): 1 means the same
geometry, up to rotation and scale. Which layers are shared between tasks can be measured so.
It ignores what carries little variance, even where it decides the classes. Biased, it is near 1 for *any* two representations
with more features than rows: debias then.
Shapes: n rows, d and e features of the two representations.
"""

from __future__ import annotations

from typing import Any

from headstart.core.errors import ConfigError, DomainError
from headstart.distances.mmd import mean_kernel
from headstart.distances.moments import BLOCK_ROWS, column_mean
from headstart.distances.pairs import median_apart, squared_distances
from headstart.distances.rows import as_numpy, constant, finish, read_pairs

__all__ = ["alignment_of_kernels", "kernel_cka", "linear_cka"]


def linear_cka(first_nd: Any, second_ne: Any, *, debiased: bool = False) -> Any:
    """Return the linear centred kernel alignment of two representations of the same rows.

    Parameters
    ----------
    first_nd, second_ne : array or tensor of shape (n, d) and (n, e)
        The same rows in the same order under two representations; n >= 2, or 4 where ``debiased``.
    debiased : bool
        Whether the chance agreement of few rows with many features is taken off; needs an (n, n) matrix.

    Returns
    -------
    float or Tensor of shape ()
        In [0, 1]; debiased, about 0 for unrelated representations and possibly below. No unit.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, or a representation is constant.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]])
    >>> round(linear_cka(rows, 3 * rows[:, ::-1] + 1), 6)      # features swapped, scaled and moved: the same geometry
    1.0
    """
    xp, first, second = read_pairs("linear_cka", first_nd, second_ne, min_rows=4 if debiased else 2)
    first, second = (_scaled("linear_cka", xp, rows) for rows in (first, second))
    if debiased:
        return finish(alignment_of_kernels("linear_cka", xp, first @ first.T, second @ second.T, debiased=True))
    across, own_first, own_second = 0.0, 0.0, 0.0
    for start in range(0, first.shape[0], BLOCK_ROWS):
        one, two = first[start : start + BLOCK_ROWS], second[start : start + BLOCK_ROWS]
        across, own_first, own_second = across + two.T @ one, own_first + one.T @ one, own_second + two.T @ two
    squares = [xp.sum(matrix * matrix) for matrix in (across, own_first, own_second)]
    return finish(squares[0] / xp.sqrt(squares[1] * squares[2]))


def kernel_cka(first_nd: Any, second_ne: Any, *, factor: float = 1.0, debiased: bool = False) -> Any:
    """Return the centred alignment of Gaussian kernels of two representations of the same rows.

    Parameters
    ----------
    first_nd, second_ne : array or tensor of shape (n, d) and (n, e)
        The same rows in the same order under two representations; n >= 2, or 4 where ``debiased``.
    factor : float, above 0
        Variance of each kernel, as a multiple of the median squared distance under its representation. Small factors compare
        near neighbours only; large ones give `linear_cka`.
    debiased : bool
        As in `linear_cka`.

    Returns
    -------
    float or Tensor of shape ()
        In [0, 1]; debiased, about 0 for unrelated representations and possibly below. No unit.

    Raises
    ------
    HeadstartError
        If the rows cannot be compared, a representation is constant, or ``factor`` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]])
    >>> round(kernel_cka(rows, 3 * rows[:, ::-1] + 1), 6)
    1.0
    """
    if not factor > 0:
        raise ConfigError(f"kernel_cka: factor must be above 0; got {factor}.")
    xp, first, second = read_pairs("kernel_cka", first_nd, second_ne, min_rows=4 if debiased else 2)
    kernels = []
    for rows in (first, second):
        centred = _scaled("kernel_cka", xp, rows)
        squared = squared_distances(xp, centred, centred)
        kernels.append(mean_kernel(xp, squared, [factor * median_apart(as_numpy(squared))]))
    return finish(alignment_of_kernels("kernel_cka", xp, kernels[0], kernels[1], debiased=debiased))


def alignment_of_kernels(who: str, xp: Any, first_nn: Any, second_nn: Any, *, debiased: bool) -> Any:
    """Return the alignment of two kernel matrices of the same rows; a constant is taken off first, which changes nothing else."""
    first_nn, second_nn = (kernel - float(xp.mean(constant(kernel))) for kernel in (first_nn, second_nn))
    if not debiased:
        first_nn, second_nn = _centre(xp, first_nn), _centre(xp, second_nn)
        values = [xp.sum(a * b) for a, b in ((first_nn, second_nn), (first_nn, first_nn), (second_nn, second_nn))]
    else:
        off = 1 - xp.eye(first_nn.shape[0], dtype=first_nn.dtype, device=first_nn.device)
        first_nn, second_nn = first_nn * off, second_nn * off
        pairs = ((first_nn, second_nn), (first_nn, first_nn), (second_nn, second_nn))
        values = [_unbiased_hsic(xp, a, b) for a, b in pairs]
    if not min(float(constant(values[1])), float(constant(values[2]))) > 0:
        raise DomainError(f"{who}: a representation has too little spread over these rows; give more or other rows.")
    return values[0] / xp.sqrt(values[1] * values[2])


def _unbiased_hsic(xp: Any, first_nn: Any, second_nn: Any) -> Any:
    """Return Song et al.'s estimate times n (n - 3), which cancels in the ratio; diagonals are 0."""
    num = first_nn.shape[0]
    ones_first, ones_second = xp.sum(first_nn, axis=0), xp.sum(second_nn, axis=0)
    value = xp.sum(first_nn * second_nn) + xp.sum(ones_first) * xp.sum(ones_second) / ((num - 1) * (num - 2))
    return value - 2 * xp.sum(ones_first * ones_second) / (num - 2)


def _centre(xp: Any, kernel_nn: Any) -> Any:
    means = xp.mean(kernel_nn, axis=0)
    return kernel_nn - means[:, None] - means[None, :] + xp.mean(means)


def _scaled(who: str, xp: Any, rows: Any) -> Any:
    """Return centred rows of about unit size, which changes no alignment and keeps fourth powers in range."""
    centred = rows - column_mean(xp, constant(rows))
    size = float(xp.max(xp.abs(constant(centred))))
    offset = float(xp.max(xp.abs(constant(rows))))
    if size <= 4 * xp.finfo(rows.dtype).eps * offset:
        raise DomainError(
            f"{who}: a representation is the same for all {rows.shape[0]} rows, so that nothing can align."
        )
    centred = centred / size
    return centred - xp.mean(centred, axis=0)
