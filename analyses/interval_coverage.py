"""Do the 95 % intervals of `neurovar.statistics.comparison` hold what they should? Units and stimuli are random draws.

500 simulated recordings of each kind of noise, 50 units × 100 stimuli × 6 repeats: units with random tuning, rates and
noise, stimuli with power-law features. Every recording has new units and new stimuli. An interval should hold the mean
of the estimates over all recordings (at these sizes: an estimator's bias is its docstring's matter) 95 % of the time.
An hour and a half on one core, half of that with two processes.

    python analyses/interval_coverage.py --output results [--quick]
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr
from joblib import Parallel, delayed
from matplotlib.figure import Figure

import neurovar
from neurovar import plotting
from neurovar._provenance import provenance
from neurovar.responses import DIMS

N_UNITS, N_STIMULI, N_REPEATS, N_FEATURES = 50, 100, 6, 20
NOISES = ("independent", "low_rank", "signal_aligned", "counts")
RANKS, N_RESAMPLES, N_SPLITS = (1, 10), 24, 5


def compute(*, quick: bool = False, seed: int = 0, n_jobs: int = 2) -> xr.Dataset:
    """Coverage and the width of intervals relative to the spread of estimates: (noise, statistic)."""
    n = 40 if quick else 500
    tables = [
        xr.concat(
            Parallel(n_jobs=n_jobs)(delayed(_one)(noise, one) for one in _seeds(seed, noise, n)), dim="simulation"
        )
        for noise in NOISES
    ]
    table = xr.concat(tables, dim="noise").assign_coords(noise=list(NOISES))
    spread = table["estimate"].std("simulation", ddof=1)
    mean = table["estimate"].mean("simulation")
    held = ((table["low"] <= mean) & (mean <= table["high"])).where(table["low"].notnull())
    results = xr.Dataset(
        {
            "coverage": held.mean("simulation"),
            "relative_error": (table["standard_error"] ** 2).mean("simulation") ** 0.5 / spread,
            "mean": mean,
            "spread": spread,
            "n_intervals": held.notnull().sum("simulation"),
        }
    )
    sizes = f"{N_UNITS} units × {N_STIMULI} stimuli × {N_REPEATS} repeats, {n} simulations, {N_RESAMPLES} resamples"
    return results.assign_attrs(sizes=sizes, seed=seed, **provenance())


def plot(results: xr.Dataset) -> Figure:
    """Coverage of each statistic under each noise; the band is 92–98 %."""
    with plotting.style():
        figure, axes = plotting.figure(1, 1, width=6.0, height=3.4)
        ax, statistics = axes[0, 0], results["statistic"].values
        ax.axhspan(0.92, 0.98, color="0.9", linewidth=0)
        ax.axhline(0.95, color="0.6", linewidth=0.8)
        for i, noise in enumerate(results["noise"].values):
            x = np.arange(len(statistics)) + (i - 1.5) * 0.15
            ax.plot(x, results["coverage"].sel(noise=noise).values, "o", label=str(noise).replace("_", " "))
        ax.set_xticks(range(len(statistics)), [str(s).replace("_", " ") for s in statistics], rotation=30, ha="right")
        ax.set_ylabel("coverage of 95 % intervals")
        ax.legend()
    return figure


def _seeds(seed: int, noise: str, n: int) -> list[np.random.SeedSequence]:
    return np.random.SeedSequence([seed, NOISES.index(noise)]).spawn(n)


def _one(noise: str, seed: np.random.SeedSequence) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return neurovar.statistics.intervals(
        recording(noise, rng), ranks=RANKS, n_resamples=N_RESAMPLES, n_splits=N_SPLITS, rng=rng
    ).drop_vars("reason")


def recording(noise: str, rng: np.random.Generator) -> xr.DataArray:
    """New units with this noise see new stimuli."""
    scale = np.arange(1, N_FEATURES + 1) ** -0.5
    features = rng.standard_normal((N_STIMULI, N_FEATURES)) * scale / np.sqrt((scale**2).sum())
    weights = rng.standard_normal((N_UNITS, N_FEATURES)) + np.eye(N_FEATURES)[0]
    signal = (features @ weights.T)[:, None]
    trials = (N_STIMULI, N_REPEATS)
    private = rng.standard_normal((*trials, N_UNITS)) * rng.uniform(0.5, 1.1, N_UNITS)
    factors = rng.standard_normal((*trials, 3))
    if noise == "counts":
        rates = rng.uniform(3, 12, N_UNITS) * (1 + 0.7 * np.tanh(signal)) * np.exp(0.25 * factors[..., :1])
        values = rng.poisson(rates * rng.gamma(5, 1 / 5, private.shape)).astype(float)
    elif noise == "low_rank":
        values = signal + private + factors @ (rng.normal([0.4, 0, 0], 0.3, (N_UNITS, 3))).T
    elif noise == "signal_aligned":
        values = signal + private + 0.5 * factors @ weights[:, :3].T
    else:
        values = signal + private
    attrs = {"units": "spike count" if noise == "counts" else "arbitrary"}
    return xr.DataArray(values, dims=DIMS, coords={"stimulus": np.arange(N_STIMULI)}, attrs=attrs)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the figure and the results.")],
    quick: Annotated[bool, typer.Option("--quick", help="40 simulations of each kind, in some minutes.")] = False,
    seed: int = 0,
    jobs: int = 2,
) -> None:
    """Compute, and write interval_coverage.nc and interval_coverage.png to OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    results = compute(quick=quick, seed=seed, n_jobs=jobs)
    results.to_netcdf(output / "interval_coverage.nc", engine="h5netcdf")
    plot(results).savefig(output / "interval_coverage.png", dpi=200)
    typer.echo(results[["coverage", "relative_error"]].to_dataframe().to_string())


if __name__ == "__main__":
    typer.run(main)
