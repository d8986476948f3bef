"""How long noise for 200,704 units takes, and its controls, beside one QR decomposition of 64 axes in float64.

Each control with new axes needs one such decomposition; nothing may take more than O(units · rank) memory, of which the
growth of the process's peak tells. Printed, not asserted: `make benchmarks`.
"""

import resource
import time
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

import neurovar
from neurovar.covariance import LowRankPlusDiagonal

N_UNITS, RANK, N_STIMULI = 64 * 56 * 56, 64, 200
N_SOURCE = 50


def responses(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("stimulus", "repeat", "unit"), coords={"stimulus": np.arange(len(values))})


def report(name: str, work: Callable[[], object], reference: float | None = None) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    ratio = f"{seconds / reference:6.1f} × the decomposition" if reference else ""
    print(f"{name:45s} {seconds:6.2f} s, peak + {grown:4.2f} GB {ratio}")
    return seconds


def systems() -> tuple[xr.DataArray, xr.DataArray]:
    """A source and a large target whose responses are maps of the same 64 latent ones."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((N_STIMULI, RANK), dtype=np.float32)
    target = latent @ rng.standard_normal((RANK, N_UNITS), dtype=np.float32)
    tuning = latent @ rng.standard_normal((RANK, N_SOURCE), dtype=np.float32)
    noise = rng.standard_normal((N_STIMULI, 8, N_SOURCE), dtype=np.float32)
    return responses(tuning[:, None] + noise), responses(target[:, None])


def bench_transplant() -> None:
    torch.set_num_threads(2)
    source, target = systems()
    axes = torch.randn(N_UNITS, RANK, dtype=torch.float64)
    reference = report(f"QR decomposition of {N_UNITS} × {RANK}", lambda: torch.linalg.qr(axes))
    methods: dict[str, dict] = {
        "spectrum": {"axes": "signal", "rank": RANK},
        "readout": {"regression": neurovar.noise.Ridge(), "least_goodness": 0.1},
        "assignment": {"n_factors": 3},
    }
    for method, options in methods.items():
        report(
            method, lambda m=method, o=options: neurovar.noise.METHODS[m].between(source, target, rng=0, **o), reference
        )
    shift = torch.ones(N_UNITS)
    factors = torch.randn(N_UNITS, RANK) * torch.arange(1, RANK + 1) ** -0.5
    for kind, private in {"equal": torch.full((N_UNITS,), 0.5), "unequal": torch.rand(N_UNITS)}.items():
        noise = LowRankPlusDiagonal(factors, private)
        report(
            f"all controls, {kind} private variances",
            lambda noise=noise: neurovar.noise.with_controls(noise, rng=0, target=target, n_dims=16, mean_shift=shift),
            reference,
        )
