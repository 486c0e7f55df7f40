"""Limited-memory BFGS that asks for evaluations, so that many problems share each pass over the data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MEMORY = 10
"""Pairs of steps and gradient changes kept, as in scipy's L-BFGS-B."""


class Descent:
    """One minimisation, driven from outside: evaluate at `trial`, `tell` the result, until `done`.

    Preconditioned L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with backtracking; `precondition` maps a
    gradient to an approximate Newton step of its shape, in place of the initial inverse Hessian.

    Parameters
    ----------
    point : ndarray of any shape, float64
    precondition : callable
    tol : float
        Stop once the largest absolute gradient entry is at most this.
    max_iter : int
    noise : float
        Relative error of the loss: rises below it are not held against a step.
    """

    def __init__(
        self, point: Array, precondition: Callable[[Array], Array], tol: float, max_iter: int, noise: float
    ) -> None:
        self.trial = point
        self.done = False
        self.iterations = 0
        self._precondition, self._tol, self._max_iter, self._noise = precondition, tol, max_iter, noise
        self._point, self._loss, self._gradient = point, np.inf, np.zeros_like(point)
        self._direction, self._step = np.zeros_like(point), 0.0
        self._pairs: deque[tuple[Array, Array, float]] = deque(maxlen=MEMORY)

    def tell(self, loss: float, gradient: Array) -> None:
        """Take the loss and gradient at `trial`: accept it and turn, or step back."""
        slope = float(np.vdot(self._gradient, self._direction))
        bound = self._loss + 1e-4 * self._step * slope + self._noise * abs(loss)
        if loss > bound:
            # The minimum of the parabola through both losses and the slope, within [0.1, 0.5] of the step.
            best = -slope * self._step / (2 * ((loss - self._loss) / self._step - slope))
            self._try(float(np.clip(best, 0.1 * self._step, 0.5 * self._step)))
            return
        self._remember(self.trial - self._point, gradient - self._gradient)
        self._point, self._loss, self._gradient = self.trial, loss, gradient
        self.done = np.abs(gradient).max() <= self._tol or self.iterations >= self._max_iter
        if not self.done:
            self.iterations += 1
            self._direction = -self._inverse(gradient)
            self._try(1.0)

    def _try(self, step: float) -> None:
        self._step = step
        self.trial = self._point + step * self._direction
        if step < 1e-8:  # no descent left at this precision
            self.trial, self.done = self._point, True

    def _remember(self, moved: Array, turned: Array) -> None:
        curvature = float(np.vdot(moved, turned))
        if curvature > 1e-10 * float(np.vdot(turned, turned)):
            self._pairs.append((moved, turned, curvature))

    def _inverse(self, gradient: Array) -> Array:
        """Two-loop recursion: the inverse Hessian's estimate times a gradient."""
        left, weights = gradient.copy(), []
        for moved, turned, curvature in reversed(self._pairs):
            weights.append(float(np.vdot(moved, left)) / curvature)
            left -= weights[-1] * turned
        result = self._precondition(left)
        for (moved, turned, curvature), weight in zip(self._pairs, reversed(weights), strict=True):
            result += (weight - float(np.vdot(turned, result)) / curvature) * moved
        return result
