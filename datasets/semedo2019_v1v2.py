"""Macaque V1 and V2, recorded together: residuals of 400 repeats of one drifting grating (Semedo et al. 2019).

The sample data of the paper's code. By the paper's methods the spikes were counted in bins of 100 ms that begin 160 ms
after stimulus onset and span 1 s; then each unit's mean over the trials was subtracted from every bin (the PSTH). What
is left are no counts: they have a covariance, but no mean, so no Fano factor. The rows are 400 trials × 10 bins, bins
fastest: in this order every unit's mean over trials is 0 in every bin, and trials differ by whole spikes.

There are three populations: "V1 source" (79 units), "V2" (31), and "V1 target", 31 other V1 units whose firing rates
were matched to those of V2. Which animal and grating it is the file does not say; the trials are not those of
`gokcen2023_v1v2`.
"""

from pathlib import Path

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, File, Source, choose
from neurovar_datasets._reading.mat import mat
from neurovar_datasets._reading.refusals import checked, expect, numbers

from neurovar import responses

_COMMIT = (
    "https://raw.githubusercontent.com/joao-semedo/communication-subspace/fd0e408ba2244d9369bda59f326480386c770e5c"
)
ONSET, BIN_WIDTH, N_BINS = 0.16, 0.1, 10
POPULATIONS = {"X": "V1 source", "Y_V1": "V1 target", "Y_V2": "V2"}
FIELDS = ", ".join(POPULATIONS)
RESIDUALS = "each unit's mean over the trials was subtracted from every time bin before publication"

SOURCE = Source(
    name="semedo2019_v1v2",
    title="Cortical areas interact through a communication subspace",
    doi="10.1016/j.neuron.2019.01.026",
    citation=(
        "Semedo JD, Zandvakili A, Machens CK, Yu BM, Kohn A (2019). Cortical areas interact through a communication "
        "subspace. Neuron 102:249-259."
    ),
    license="MIT",
    license_url=f"{_COMMIT}/LICENSE",
    redistribution=True,
    derivatives=True,
    units="spike count residual",
    area="V1, V2",
    species="macaque",
    method="Utah array, tetrodes",
    n_units="79 + 31 + 31",
    n_stimuli="1",
    n_repeats="400",
    sessions={
        "sample_data": (
            File(
                path="semedo2019_v1v2/sample_data.mat",
                url=f"{_COMMIT}/mat_sample/sample_data.mat",
                hash="sha256:37cd032962360baf5f6f7b853fea5739e6bfd9038520ec6247d9932c51634ec1",
                size=748_925,
            ),
        )
    },
)


def sessions() -> tuple[str, ...]:
    """The names of the sessions, of which one is published.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()
    ('sample_data',)
    """
    return tuple(SOURCE.sessions)


def load(
    *,
    session: str = "sample_data",
    window: tuple[float, float] | None = None,
    bin_width: float | None = None,
    path: AnyPath | None = None,
) -> xr.DataArray:
    """Residuals of spike counts of the three populations, for each trial or resolved in time.

    Parameters
    ----------
    session : str, optional
        "sample_data", the only one.
    window : tuple of float, optional
        Start and stop in s from stimulus onset, of which the whole bins of 0.1 s count; by default 0.16 to 1.16 s.
    bin_width : float, optional
        In s, 0.1 or a multiple; by default one sum for the whole window.
    path : path-like, optional
        The file `sample_data.mat`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit), float64, of 1 stimulus × 400 repeats × 141 units, with a last dim `time` (each bin's
        start in s) if `bin_width` is given. `unit` has the coordinates `population` ("V1 source", "V1 target", "V2"),
        `area`, `subject` and `session`. The coordinate `residuals` says why they are no counts.

    Raises
    ------
    ValueError
        If the session is unknown, `path` does not exist, or the bins do not fit.
    CorruptDataError, DataUnavailableError
        If the file is not what was declared, or cannot be had.

    References
    ----------
    Semedo et al. 2019, Neuron 102:249, doi:10.1016/j.neuron.2019.01.026

    Examples
    --------
    >>> load(session="105l001p16")
    Traceback (most recent call last):
    ...
    ValueError: expected the session to be one of 'sample_data', got '105l001p16'
    """
    (file,) = choose(session, SOURCE.sessions, kind="session")
    residuals = _read_residuals(find(file, path=path), session)
    return responses.rebin(residuals.assign_attrs(SOURCE.attrs(file)), window=window, bin_width=bin_width)


def _read_residuals(path: Path, session: str) -> xr.DataArray:
    """Labelled residuals (stimulus, repeat, unit, time) from the matrices (trial and time, unit)."""
    content = mat(path, list(POPULATIONS))
    tables = [numbers(path, name, content[name], ndim=2) for name in POPULATIONS]
    n_rows, n_units = {len(table) for table in tables}, [table.shape[1] for table in tables]
    fits = len(n_rows) == 1 and min(n_rows) > 0 and min(n_rows) % N_BINS == 0 and min(n_units) > 0
    expected, got = f"units, and the same number of rows, a multiple of {N_BINS}", [table.shape for table in tables]
    expect(fits, path, FIELDS, expected, got)
    values = np.concatenate(tables, axis=1).reshape(-1, N_BINS, sum(n_units)).transpose(0, 2, 1).astype(np.float64)
    mean = np.abs(values.mean(axis=0)).max()
    expect(mean < 1e-6, path, FIELDS, "a mean of 0 over trials in each bin", f"up to {mean:g}")
    population = np.repeat(list(POPULATIONS.values()), n_units)
    labels = {"population": population, "area": [name[:2] for name in population]}
    labels |= {"subject": np.full(len(population), "not published"), "session": np.full(len(population), session)}
    residuals = xr.DataArray(
        values[None],
        dims=("stimulus", "repeat", "unit", "time"),
        coords={
            "stimulus": ["grating"],
            "unit": np.arange(len(population)),
            "time": (ONSET + np.arange(N_BINS) * BIN_WIDTH).round(6),
            **{name: ("unit", label) for name, label in labels.items()},
        },
        name="responses",
        attrs={"bin_width": BIN_WIDTH},
    )
    return checked(path, responses.mark(residuals, residuals=RESIDUALS))
