"""Exact confidence limits of a binomial proportion (Clopper and Pearson 1934), in plain Python.

The limits are quantiles of beta distributions. The regularised incomplete beta function is computed by the
continued fraction of Abramowitz and Stegun 26.5.8 (modified Lentz), and inverted by bisection.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_TERMS = 10_000
_HALVINGS = 200


def upper_limit(successes: int, trials: int, risk: float) -> float:
    """The largest proportion under which so few successes still have probability ``risk``.

    Covers the true proportion with probability at least 1 − risk. 1.0 for no trials.

    Raises:
        ValueError: unless 0 ≤ successes ≤ trials and 0 < risk < 1.
    """
    _check(successes, trials, risk)
    if successes == trials:
        return 1.0
    return _beta_quantile(1.0 - risk, successes + 1.0, float(trials - successes))


def lower_limit(successes: int, trials: int, risk: float) -> float:
    """The smallest proportion under which so many successes still have probability ``risk``.

    Raises:
        ValueError: unless 0 ≤ successes ≤ trials and 0 < risk < 1.
    """
    _check(successes, trials, risk)
    if successes == 0:
        return 0.0
    return _beta_quantile(risk, float(successes), trials - successes + 1.0)


def _check(successes: int, trials: int, risk: float) -> None:
    if not (0 <= successes <= trials and 0.0 < risk < 1.0):
        raise ValueError(
            f"got {successes} of {trials} at risk {risk}, expected 0 <= successes <= trials and 0 < risk < 1"
        )


def _beta_quantile(probability: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if _beta_cdf(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return high


def _beta_cdf(x: float, a: float, b: float) -> float:
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1.0 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _away(value: float) -> float:
    """A value that can be divided by."""
    return value if abs(value) > _TINY else _TINY
