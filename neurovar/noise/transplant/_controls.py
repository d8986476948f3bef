"""Controls: noise that differs from the noise under test in one property, at the same trace."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from neurovar.covariance import Covariance
from neurovar.networks import Control
from neurovar.noise.transplant._control_kinds import CONTROLS, Material

UNDER_TEST = "transplanted"
"""What the noise under test is called among its controls."""


class Controls(dict[str, Covariance]):
    """The noise under test, "transplanted", and its controls, by the names of their kinds.

    Parameters
    ----------
    noises : mapping of str to Covariance
        The noise under test and its controls.
    left_out : mapping of str to str
        Why the other controls are not among them.

    Attributes
    ----------
    left_out : dict of str to str
        Kind → why it is not there: what it needs, or "not asked for".

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> noises = with_controls(Diagonal.isotropic(3), rng=0, only=["rotated"])
    >>> [noises.control(name) for name in noises]
    [None, Control(kind='rotated', of='', matched_by='trace')]
    """

    def __init__(self, noises: Mapping[str, Covariance], left_out: Mapping[str, str]) -> None:
        super().__init__(noises)
        self.left_out = dict(left_out)

    def control(self, name: str) -> Control | None:
        """What a noise is to a `networks.NoisyNetwork`: which control, or None for the noise under test.

        Parameters
        ----------
        name : str
            One of the names here.

        Returns
        -------
        Control or None
            Its kind, matched by the trace.

        Raises
        ------
        ValueError
            For a name that is not here.
        """
        if name not in self:
            raise ValueError(f"expected one of {', '.join(self)}, got {name!r}")
        return None if name == UNDER_TEST else Control(kind=name, matched_by="trace")


def with_controls(
    noise: Covariance,
    *,
    rng: np.random.Generator | int,
    target: xr.DataArray | None = None,
    n_dims: int | None = None,
    mean_shift: Tensor | None = None,
    only: Sequence[str] | None = None,
) -> Controls:
    """The noise and the controls that separate hypotheses about it, all at its trace.

    - `diagonal`: do correlations matter? The same variances without them.
    - `isotropic`: does any structure matter? Equal and independent noise for all units.
    - `rotated`: do directions matter? The same spectrum under a random rotation.
    - `shuffled_spectrum`: does it matter which direction has how much? The same eigenvectors, each with the eigenvalue
      of another.
    - `flat_spectrum`: does it matter that directions differ? The same eigenvectors, and in place of the eigenvalues
      that are not 0 their mean. Noise of full rank has no such control: it would be `isotropic`.
    - `signal_aligned`, `signal_orthogonal`: does overlap with the signal matter? The same spectrum, the largest
      eigenvalues in the `n_dims` leading dimensions of the signal of `target`, or in random directions out of them: no
      noise with this spectrum has more, or less, variance there (`statistics.noise_in_signal`). The means of a target
      with few repeats have noise in them, and so their axes.
    - `mean_shift`: does it have to vary? A constant of the same power.

    Controls of the spectrum keep the `rank` leading eigenvalues of `LowRankPlusDiagonal` and replace the others by
    their mean, which keeps the trace and O(n · rank) memory: where its private variances differ, compare effective
    dimensionalities, or give `Dense(noise.to_dense())`. Of other types they keep every eigenvalue, and are `Dense`. Of
    state-dependent noise and of sums, controls are those of the average covariance.

    Parameters
    ----------
    noise : Covariance
        The noise under test, over n units.
    rng : numpy.random.Generator or int
        For what is random in the controls; each has random numbers of its own, whichever others are made.
    target : xarray.DataArray, optional
        Responses (stimulus, repeat, unit) of the units that get the noise, for the two controls of the signal, with
        `n_dims`.
    n_dims : int, optional
        How many leading dimensions of the target's signal.
    mean_shift : torch.Tensor, optional
        (n,), the direction of the constant, such as the mean of the deviations that the noise comes from.
    only : sequence of str, optional
        Names in `CONTROLS` of the controls that are wanted; by default all that can be made from what is given.

    Returns
    -------
    Controls
        A dict, "transplanted" first. What is not in it is in its `left_out`, each with what it needs.

    Raises
    ------
    ValueError
        If a name in `only` is unknown or needs what is not given, or what is given does not fit the noise.

    Examples
    --------
    >>> import torch
    >>> from neurovar.covariance import Dense
    >>> noises = with_controls(Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0]))), rng=0, mean_shift=torch.ones(3))
    >>> {name: round(c.trace(), 3) for name, c in noises.items()}
    {'transplanted': 6.0, 'diagonal': 6.0, 'isotropic': 6.0, 'rotated': 6.0, 'shuffled_spectrum': 6.0, \
'mean_shift': 6.0}
    >>> noises.left_out  # doctest: +NORMALIZE_WHITESPACE
    {'flat_spectrum': 'is isotropic for noise of full rank', 'signal_aligned': 'needs target= and n_dims=',
     'signal_orthogonal': 'needs target= and n_dims='}
    """
    material = Material(noise, target, n_dims, mean_shift)
    if only is not None and (isinstance(only, str) or set(only) - set(CONTROLS)):
        raise ValueError(f"expected names of controls ({', '.join(CONTROLS)}), got {only!r}")
    # Each kind has a seed of its own, drawn for all, so that a control does not depend on which others are made.
    seeds = np.random.default_rng(rng).integers(2**63, size=len(CONTROLS))
    noises, left_out = {UNDER_TEST: noise}, {}
    for (name, kind), seed in zip(CONTROLS.items(), seeds):
        if only is not None and name not in only:
            left_out[name] = kind.lack(material) or "not asked for"
        elif only is None and (reason := kind.lack(material) or kind.coincide(material)):
            left_out[name] = reason
        else:
            noises[name] = kind.checked(material).make(material, np.random.default_rng(seed))
    return Controls(noises, left_out)
