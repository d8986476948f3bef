"""From the responses of a source, or what was fitted to them, to noise for a target."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import numpy as np
import xarray as xr

from neurovar.covariance import Covariance
from neurovar.noise.transplant._assignment import Assignment, fit_assignment, place_assignment
from neurovar.noise.transplant._gain import GainLaw, fit_gain, place_gain
from neurovar.noise.transplant._readout import Readout, fit_readout, place_readout
from neurovar.noise.transplant._rule import SignalRule, fit_signal_rule, place_signal_rule
from neurovar.noise.transplant._spectrum import Spectrum, fit_spectrum, place_spectrum
from neurovar.responses import validate

Fitted = SignalRule | Spectrum | Readout | Assignment | GainLaw


@dataclass(frozen=True)
class Method:
    """How a value is fitted to the source, and how it becomes noise for the target; `paired` fits to both."""

    value: type
    fit: Callable[..., Any]
    place: Callable[..., Covariance]
    paired: bool = False


METHODS = {
    "spectrum": Method(Spectrum, fit_spectrum, place_spectrum),
    "readout": Method(Readout, fit_readout, place_readout, paired=True),
    "signal_rule": Method(SignalRule, fit_signal_rule, place_signal_rule),
    "assignment": Method(Assignment, fit_assignment, place_assignment, paired=True),
    "gain": Method(GainLaw, fit_gain, place_gain),
}


def onto(
    source: xr.DataArray | Fitted,
    target: xr.DataArray,
    *,
    method: str,
    rng: np.random.Generator | int,
    **options: Any,
) -> Covariance:
    """The noise that `target` would have if it had that of `source`.

    - "spectrum": the source's eigenvalues by relative rank, on eigenvectors of the target. Options: `axes` of its
      "signal" (its stimulus means), of "modification" (its deviations from these) or "random" ones; `rank`, how many of
      them (by default all), between which and the other directions the rest of the variance is spread equally.
    - "readout": the source is read out of the target by a linear map W fitted to shared stimuli, and its noise C pulled
      back, W⁺ C W⁺ᵀ, with isotropic noise where W does not see. Options of `fit_readout`; `least_goodness` is required.
    - "signal_rule": noise correlation follows signal correlation, and variance the mean. Needs no shared stimuli.
    - "assignment": each unit takes over the noise of the source's unit with the most similar tuning to shared stimuli.
      Options of `fit_assignment`; `n_factors` is required.
    - "gain": a shared gain and a Fano law. Noise that depends on the activations, `GainModulated`.

    `fit_readout` and `fit_assignment` return the goodness of the map and the table of assignments, which are to be
    looked at; give what they return as `source`.

    The variance of "signal_rule" averages 1, as a network's activations stand in for rates by their size alone; that of
    "gain" and "readout" is in units of the target's activations; that of "spectrum" and "assignment" in the source's.
    `Covariance.scale_to` sets the total.

    Parameters
    ----------
    source : responses, or what `fit_<method>` made of them.
    target : responses (stimulus, repeat, unit). With one repeat they count as noise-free.
    rng : for what the method draws at random: "random" axes, folds, halves.
    options : of `fit_<method>`, where responses are given, and of "spectrum".

    Returns
    -------
    Covariance, of the target's dtype (float32 unless that is float64): `Dense` for "signal_rule", and "spectrum" where
    every axis is used; `GainModulated` for "gain"; else `LowRankPlusDiagonal`, in O(units · rank) memory.

    Raises
    ------
    ValueError : for another method, a fitted value of another, an option that it does not have or lacks, responses that
        are not valid, and as of `fit_<method>`; if the noise would not fit into memory.

    Examples
    --------
    >>> from neurovar import statistics
    >>> cortex = statistics.population(n_stimuli=100, n_repeats=6, n_units=20, counts=True, rng=0)
    >>> network = statistics.population(n_stimuli=50, n_repeats=1, n_units=30, rng=1)
    >>> noise = onto(cortex, network, method="signal_rule", rng=0)
    >>> noise.n, round(noise.trace(), 3)
    (30, 30.0)
    >>> onto(cortex, network, method="spectrum", axes="signal", rank=5, rng=0).factors.shape
    torch.Size([30, 5])
    """
    if method not in METHODS:
        raise ValueError(f"expected method {', '.join(map(repr, METHODS))}, got {method!r}")
    how = METHODS[method]
    validate(target)
    fitted = isinstance(source, how.value)
    if not fitted and not isinstance(source, xr.DataArray):
        raise ValueError(
            f"expected responses or a {how.value.__name__} for method {method!r}, got {type(source).__name__}"
        )
    _check_options(method, options, [how.place] if fitted else [how.fit, how.place])
    rng = np.random.default_rng(rng)
    value: Any = source
    if not fitted:
        value = _call(how.fit, (source, target) if how.paired else (source,), options, rng)
    return _call(how.place, (value, target), options, rng)


def _parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Those that are given by name."""
    return {name: p for name, p in signature(function).parameters.items() if p.kind is Parameter.KEYWORD_ONLY}


def _check_options(method: str, options: dict[str, Any], functions: list[Callable[..., Any]]) -> None:
    known = {name: p for function in functions for name, p in _parameters(function).items() if name != "rng"}
    unknown = [name for name in options if name not in known]
    missing = [name for name, p in known.items() if p.default is Parameter.empty and name not in options]
    if unknown:
        has = ", ".join(known) or "none"
        raise ValueError(f"expected options that method {method!r} has here ({has}), got {', '.join(unknown)}")
    if missing:
        raise ValueError(f"expected the options {', '.join(missing)} for method {method!r}, got none")


def _call(function: Callable[..., Any], args: tuple, options: dict[str, Any], rng: np.random.Generator) -> Any:
    """With those of the options that the function has, and `rng` where it cannot do without."""
    parameters = _parameters(function)
    chosen = {name: value for name, value in options.items() if name in parameters}
    if "rng" in parameters and parameters["rng"].default is Parameter.empty:
        chosen["rng"] = rng
    return function(*args, **chosen)
