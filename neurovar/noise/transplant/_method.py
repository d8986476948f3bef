"""What all methods of transplanting have in common: a value that is fitted to a source and put onto a target."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr

from neurovar.covariance import Covariance
from neurovar.responses import validate

METHODS: dict[str, type["TransplantMethod"]] = {}
"""Every method by its name, in the order in which they are defined; those of a user's own follow."""


@dataclass(frozen=True, eq=False)
class TransplantMethod(ABC):
    """What a method of transplanting has learned of a source, ready to become noise for a target.

    `Method.fit(source)`, or `Method.fit(source, target)` where the two have to share stimuli, gives the value: its
    fields are to be looked at before it is used. `value.onto(target)` gives the noise. `Method.between` does both, for
    those who have a method's name and options only, as a command line has.

    A method of one's own is a frozen dataclass with these three, and is known by its name in `METHODS`.

    Attributes
    ----------
    name : str
        What the method is called in `METHODS`, on the command line and in results.
    required : tuple of str
        The options that `between` cannot do without.
    optional : tuple of str
        The other options of `between`.

    Examples
    --------
    >>> from neurovar import noise, statistics
    >>> cortex = statistics.population(n_stimuli=100, n_repeats=6, n_units=20, counts=True, rng=0)
    >>> network = statistics.population(n_stimuli=50, n_repeats=1, n_units=30, rng=1)
    >>> noise.SignalRule.fit(cortex).onto(network).n
    30
    >>> noise.METHODS["spectrum"].between(cortex, network, axes="signal", rank=5, rng=0).factors.shape
    torch.Size([30, 5])
    """

    name: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        METHODS[cls.name] = cls

    def __eq__(self, other: object) -> bool:
        """Whether both are of one method and all that they hold is equal."""
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]  # they hold arrays

    @classmethod
    def between(
        cls, source: xr.DataArray, target: xr.DataArray, *, rng: np.random.Generator | int, **options: Any
    ) -> Covariance:
        """Fit to the source and put onto the target in one call.

        Parameters
        ----------
        source : xarray.DataArray
            Responses (stimulus, repeat, unit) whose noise is wanted.
        target : xarray.DataArray
            Responses (stimulus, repeat, unit) of the units that get the noise. With one repeat they count as
            noise-free.
        rng : numpy.random.Generator or int
            For what the method draws at random: folds, halves, axes.
        **options : object
            Those in `required` and `optional`, as `fit` and `onto` take them.

        Returns
        -------
        Covariance
            Over the target's units.

        Raises
        ------
        ValueError
            For an option that the method does not have or lacks, responses that are not valid, and as `fit` and
            `onto`.
        """
        known = (*cls.required, *cls.optional)
        unknown = [option for option in options if option not in known]
        missing = [option for option in cls.required if option not in options]
        if unknown:
            has = ", ".join(known) or "none"
            raise ValueError(f"expected options that {cls.name!r} has ({has}), got {', '.join(unknown)}; leave it out")
        if missing:
            raise ValueError(f"expected the options {', '.join(missing)} for {cls.name!r}, got none; give them")
        validate(target)
        return cls._between(source, target, np.random.default_rng(rng), **options)

    @classmethod
    @abstractmethod
    def _between(cls, source: xr.DataArray, target: xr.DataArray, rng: np.random.Generator, **options: Any) -> Any:
        """`fit` and `onto`, each with its own of the options, which are known to be there."""


def _same(first: Any, second: Any) -> bool:
    """Whether two values are equal, arrays in them element by element with NaN equal to NaN."""
    if type(first) is not type(second):
        return False
    if is_dataclass(first):
        return all(_same(getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second, equal_nan=True)
    if isinstance(first, xr.DataArray | xr.Dataset):
        return bool(first.identical(second))
    return bool(first == second)
