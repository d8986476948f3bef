"""What needs spike counts: the Fano factor."""

import numpy as np
import xarray as xr

from neurovar.estimation._common import labelled_units, require_counts
from neurovar.responses import validate


def fano_factor(responses: xr.DataArray) -> xr.DataArray:
    """Fano factor of each unit: variance / mean of its spike counts, averaged over stimuli.

    F_u = mean over s of σ²_su / μ_su, variance with dof Rₛ − 1; stimuli with one repeat or without a spike are left
    out. 1 for a Poisson process. The ratio of estimates has no bias for Poisson counts, and one of about
    −F(F − 1)/(R μ) for negative binomial and binomial ones: too close to 1.

    Returns
    -------
    DataArray (unit), without units

    Raises
    ------
    ValueError : if attrs["units"] is not "spike count", a count is negative, or no stimulus has two repeats.

    References
    ----------
    Churchland et al. 2010, doi:10.1038/nn.2501

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [0]},
    ...                   attrs={"units": "spike count"})
    >>> fano_factor(da).item()
    1.0
    """
    validate(responses, min_repeats=2)
    require_counts(responses)
    return labelled_units(fano_factor_kernel(responses.values), responses)


def fano_factor_kernel(values: np.ndarray) -> np.ndarray:
    """`fano_factor` of an array (stimulus, repeat, unit)."""
    kept = values[(~np.isnan(values[:, :, 0])).sum(axis=1) > 1]
    mean, variance = np.nanmean(kept, axis=1), np.nanvar(kept, axis=1, ddof=1)
    ratio = np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0)
    return ratio.sum(axis=0) / np.where((mean > 0).any(axis=0), (mean > 0).sum(axis=0), np.nan)
