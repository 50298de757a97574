"""scipy's functions that the curriculum uses, loaded when one is first called.

scipy takes longer to import than everything else here together, and a program that only reads a posterior needs none
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Argument = _Floats | float


def gammaln(x: _Argument) -> _Floats:
    """Logarithm of the absolute value of the gamma function."""
    from scipy import special

    return np.asarray(special.gammaln(x))


def betaln(a: _Argument, b: _Argument) -> _Floats:
    """Logarithm of the beta function."""
    from scipy import special

    return np.asarray(special.betaln(a, b))


def beta_quantile(a: _Argument, b: _Argument, level: _Argument) -> _Floats:
    """The value below which a draw from Beta(a, b) lies with probability `level`."""
    from scipy import special

    return np.asarray(special.betaincinv(a, b, level))


def digamma(x: _Argument) -> _Floats:
    """Derivative of `gammaln`."""
    from scipy import special

    return np.asarray(special.digamma(x))


def logit(p: _Argument) -> _Floats:
    """log(p / (1 - p))."""
    from scipy import special

    return np.asarray(special.logit(p))


def expit(x: _Argument) -> _Floats:
    """1 / (1 + exp(-x)), the inverse of `logit`."""
    from scipy import special

    return np.asarray(special.expit(x))


def smallest(
    function: Callable[[_Floats], tuple[float, _Floats]], start: _Floats, bounds: Sequence[tuple[float, float]]
) -> _Floats:
    """Argument within bounds at which the function, which returns value and gradient, is smallest (L-BFGS-B)."""
    from scipy import optimize

    return np.asarray(optimize.minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds).x)
