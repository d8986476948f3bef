"""A statistic as a value: what it computes, how it is called and labelled, and which settings it needs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
import xarray as xr

from neurovar._values import Value

Over = Literal["pair", "unit", "population"]
MEMBERS = {"pair": "pair of units", "unit": "unit"}
"""What a mean is over, in words."""
UNSET: Any = None
"""The default of a setting that has none. Any, because no statistic is computed before it is set: see `lacks`."""


@dataclass(frozen=True)
class Settings(Value):
    """What a statistic needs beside responses; a field that is None has no default, because the science has none.

    A statistic whose `settings` are of this class itself draws random numbers and has nothing to set. A subclass, a
    frozen dataclass, adds fields; `compare` and its like set them by name.

    Attributes
    ----------
    lacks : tuple of str
        The fields that have to be set before the statistic can be computed.

    Examples
    --------
    >>> PowerLawWindow().lacks, PowerLawWindow(ranks=(2, 20)).lacks
    (('ranks',), ())
    """

    @property
    def lacks(self) -> tuple[str, ...]:
        """The fields that have to be set before the statistic can be computed."""
        return tuple(name.name for name in fields(self) if getattr(self, name.name) is None)

    def filled(self, values: Mapping[str, Any]) -> Self:
        """With those of the values that it has a field for."""
        return replace(self, **{name.name: values[name.name] for name in fields(self) if name.name in values})


@dataclass(frozen=True)
class Halves(Settings):
    """Random halves of the repeats.

    Parameters
    ----------
    n_splits : int, optional
        How many divisions into halves are averaged.

    Examples
    --------
    >>> str(Halves(n_splits=5))
    'Halves(n_splits=5)'
    """

    n_splits: int = 10


@dataclass(frozen=True)
class PowerLawWindow(Halves):
    """The window of ranks of a power law that is fitted to a spectrum from random halves.

    Parameters
    ----------
    n_splits : int, optional
        How many divisions into halves are averaged.
    ranks : tuple of int, optional
        The first and the last rank that are fitted, from 1.

    Examples
    --------
    >>> str(PowerLawWindow(ranks=(2, 20)))
    'PowerLawWindow(ranks=(2, 20))'
    """

    ranks: tuple[int, int] = field(default=UNSET, metadata={"form": "(first, last)"})


@dataclass(frozen=True)
class SignalDimensions(Halves):
    """The leading dimensions of the signal, from random halves.

    Parameters
    ----------
    n_splits : int, optional
        How many divisions into halves are averaged.
    n_dims : int, optional
        The number of dimensions.

    Examples
    --------
    >>> SignalDimensions(n_dims=3).lacks
    ()
    """

    n_dims: int = field(default=UNSET, metadata={"form": "a number of dimensions"})


@dataclass(frozen=True)
class Statistic:
    """A number that says something about the responses of one session, and all that tables and figures say of it.

    Parameters
    ----------
    function : callable
        From responses (stimulus, repeat, unit), and with `settings` also from these and a `numpy.random.Generator`, to
        one value a unit, a matrix (unit, other_unit), or one number. A Dataset that has a variable of the statistic's
        name will do. A `ValueError` says why responses do not allow the statistic.
    name : str
        What it is asked for by.
    label : str
        What tables call a value.
    over : {"pair", "unit", "population"}, optional
        What the statistic of a session is a mean over, of the members that have a value: the pairs of units, the units,
        or nothing, because it is a number of the population as a whole.
    unit : str, optional
        The unit of measurement; "" for a plain number.
    axis : str, optional
        What the axis of a figure is called, where the label would be too long or say too little.
    no_effect : float, optional
        The value, but for the estimator's bias, of a population without what the statistic measures: independent units,
        Poisson counts, no tuning. NaN where it depends on sizes.
    settings : Settings, optional
        What it needs beside the responses; None if it is a function of these alone.
    by_default : bool, optional
        Whether it is computed where no statistics are asked for.

    Attributes
    ----------
    mean_label : str
        What tables call the mean.
    axis_label : str
        The label of an axis, with the unit.
    lacks : tuple of str
        The settings that have to be set before it can be computed.

    See Also
    --------
    neurovar.statistics.STATISTICS : those that have a name.

    Examples
    --------
    A statistic of one's own is one value, and stands beside the others:

    >>> from neurovar.statistics import compare, population
    >>> da = population(n_stimuli=60, n_repeats=4, n_units=8, counts=True, rng=0)
    >>> largest = Statistic(lambda da: da.max(("stimulus", "repeat")), "largest", "largest count", over="unit")
    >>> table = compare({"V4": da}, statistics=["noise_correlation", largest], n_resamples=2, rng=0)
    >>> table.label.values.tolist()
    ['noise correlation (mean over pairs)', 'largest count (mean over units)']
    """

    function: Callable[..., Any]
    name: str
    label: str
    over: Over = "population"
    unit: str = ""
    axis: str = ""
    no_effect: float = np.nan
    settings: Settings | None = None
    by_default: bool = True

    @property
    def mean_label(self) -> str:
        """What tables call the statistic of a session, such as "Fano factor (mean over units)"."""
        label = f"{self.label} in {self.unit}" if self.unit else self.label
        return label if self.over == "population" else f"{label} (mean over {self.over}s)"

    @property
    def axis_label(self) -> str:
        """What the axis of a figure is called, with the unit."""
        name = self.axis or self.label
        return f"{name} ({self.unit})" if self.unit else name

    @property
    def lacks(self) -> tuple[str, ...]:
        """The settings that have to be set before it can be computed."""
        return self.settings.lacks if self.settings else ()

    def with_settings(self, **settings: Any) -> "Statistic":
        """The same statistic with other settings.

        Parameters
        ----------
        **settings : Any
            New values of the fields of `settings`; names that the statistic has no field for are left out.
        """
        return replace(self, settings=self.settings.filled(settings)) if self.settings else self

    def values(self, responses: xr.DataArray, *, rng: np.random.Generator | int = 0) -> np.ndarray:
        """The value of each unit or pair of units, or the one of the population.

        Parameters
        ----------
        responses : xarray.DataArray
            (stimulus, repeat, unit).
        rng : numpy.random.Generator or int, optional
            For a statistic with random splits or folds.

        Returns
        -------
        numpy.ndarray
            (unit,), (pair,) in the order of `numpy.triu_indices`, or ().

        Raises
        ------
        ValueError
            If the responses do not allow the statistic.
        """
        return self._members(self._computed(responses, rng))

    def estimate(self, responses: xr.DataArray, *, rng: np.random.Generator | int = 0) -> float:
        """The statistic of a session: the mean over units or pairs that have a value, or the value of the population.

        Parameters
        ----------
        responses : xarray.DataArray
            (stimulus, repeat, unit).
        rng : numpy.random.Generator or int, optional
            For a statistic with random splits or folds.

        Raises
        ------
        ValueError
            If the responses do not allow the statistic, or no member has a value.
        """
        return self._mean(self._computed(responses, rng))

    def _computed(self, responses: xr.DataArray, rng: np.random.Generator | int) -> Any:
        if self.settings is None:
            return self.function(responses)
        for name in self.lacks:
            raise ValueError(f"expected {name}= for {self.name!r}, got none; with_settings({name}=…) sets it")
        return self.function(responses, self.settings, np.random.default_rng(rng))

    def _members(self, result: Any) -> np.ndarray:
        values = np.asarray(result[self.name] if isinstance(result, xr.Dataset) else result)
        if self.over != "pair" or values.ndim < 2:
            return values
        if len(values) < 2:
            raise ValueError(f"expected at least 2 units, got {len(values)}")
        return values[np.triu_indices(len(values), 1)]  # each pair once, none of a unit with itself

    def _mean(self, result: Any) -> float:
        values = self._members(result)
        # A number of the population, or a mean that the function took itself.
        if values.ndim == 0:
            if np.isnan(values):
                raise ValueError(f"expected responses that have a value of {self.name!r}, got some that have none")
            return float(values)
        # Silent units and pairs that never vary for the same stimulus have no value; the mean is that of the others.
        defined = values[np.isfinite(values)]
        if not defined.size:
            raise ValueError(f"expected a {MEMBERS[self.over]} with a value, got none of {values.size}")
        return float(defined.mean())


@dataclass(frozen=True)
class Evaluation:
    """Statistics that are computed together, of many sets of responses.

    Each of them starts from the same seed every time: it does not depend on which others are asked for, and the error
    of random splits cancels between responses that differ in a few units or stimuli.
    """

    statistics: tuple[Statistic, ...]
    seed: int

    @property
    def names(self) -> list[str]:
        return [statistic.name for statistic in self.statistics]

    def with_reasons(self, session: xr.DataArray) -> tuple[np.ndarray, list[str]]:
        """The value of each statistic, NaN where the responses do not allow it, and why ("" where they do)."""
        values, reasons = np.full(len(self.statistics), np.nan), [""] * len(self.statistics)
        # What gives a Dataset gives several statistics (a factor analysis does), and is computed for the first of them.
        shared: dict[Any, xr.Dataset] = {}
        for number, statistic in enumerate(self.statistics):
            key = (statistic.function, statistic.settings)
            try:
                result = shared[key] if key in shared else statistic._computed(session, self.seed)
                if isinstance(result, xr.Dataset):
                    shared[key] = result
                values[number] = statistic._mean(result)
            except ValueError as error:
                reasons[number] = str(error)
        return values, reasons

    def values(self, sessions: Iterable[xr.DataArray]) -> np.ndarray:
        """(session, statistic)"""
        return np.array([self.with_reasons(session)[0] for session in sessions])
