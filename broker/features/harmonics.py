"""A few harmonics of a frequency, fitted to a series by weighted least squares."""

from __future__ import annotations

import numpy as np

from broker.features.measurements import F64
from broker.measured import compiled


@compiled
def normal_equations(t: F64, y: F64, w: F64, frequency: float, harmonics: int) -> tuple[F64, F64, float]:
    """Normal equations of y = x0 + sum_k x(2k-1) cos 2 pi k f t + x(2k) sin 2 pi k f t, k = 1..harmonics.

    t, y, w : (m,) time [day], flux, 1 / error^2;  frequency : f [1 / day].
    Returns the matrix (its lower triangle), the right side, and sum w y^2.
    """
    size = 2 * harmonics + 1
    normal, right, square = np.zeros((size, size)), np.zeros(size), 0.0
    terms = np.ones(size)
    for i in range(t.shape[0]):
        angle = 2.0 * np.pi * (t[i] * frequency % 1.0)
        c, s = np.cos(angle), np.sin(angle)
        terms[1], terms[2] = c, s
        for k in range(1, harmonics):
            terms[2 * k + 1] = terms[2 * k - 1] * c - terms[2 * k] * s
            terms[2 * k + 2] = terms[2 * k - 1] * s + terms[2 * k] * c
        square += w[i] * y[i] * y[i]
        for a in range(size):
            weighted = w[i] * terms[a]
            right[a] += weighted * y[i]
            for b in range(a + 1):
                normal[a, b] += weighted * terms[b]
    return normal, right, square


@compiled
def harmonics_chi2(t: F64, y: F64, w: F64, frequency: float, harmonics: int) -> float:
    """Chi2 about the mean that some harmonics remove; 0 if there are too few points to tell.

    t, y, w : (m,) time [day], flux, 1 / error^2;  frequency : [1 / day]. Two points are asked for each
    free number.
    """
    normal, right, _ = normal_equations(t, y, w, frequency, harmonics)
    wanted = right.copy()
    of_mean = right[0] ** 2 / normal[0, 0]
    if t.shape[0] < 2 * right.shape[0] or not solve_symmetric(normal, right):
        return 0.0
    return float((wanted * right).sum() - of_mean)


@compiled
def solve_symmetric(matrix: F64, right: F64) -> bool:
    """Solve a positive definite system by Cholesky's method, in place; False if it is (nearly) singular.

    matrix : (k, k), its lower triangle is read and replaced;  right : (k,), replaced by the solution.
    """
    size = right.shape[0]
    for a in range(size):
        diagonal = matrix[a, a]
        for b in range(a + 1):
            for c in range(b):
                matrix[a, b] -= matrix[a, c] * matrix[b, c]
            if b < a:
                matrix[a, b] /= matrix[b, b]
        if not matrix[a, a] > 1e-10 * diagonal:
            return False
        matrix[a, a] = np.sqrt(matrix[a, a])
        for c in range(a):
            right[a] -= matrix[a, c] * right[c]
        right[a] /= matrix[a, a]
    for a in range(size - 1, -1, -1):
        for c in range(a + 1, size):
            right[a] -= matrix[c, a] * right[c]
        right[a] /= matrix[a, a]
    return True
