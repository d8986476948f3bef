"""How long noise correlations of 10,000 units take, beside one `X.T @ X` of the trials, and how much memory.

Wanted: at most 1.5 × the time and 3 × the result's memory. Printed, not asserted: `make benchmarks`.
"""

import json
import statistics
import subprocess
import sys

import pytest

N_TRIALS, N_UNITS = 5600, 10_000
N_RUNS = 5
PRODUCT = "compute = lambda: trials.T @ trials"
CASES = {
    "2,800 × 2, zscore=False": (2, "compute = lambda: noise_correlation(responses, zscore=False)"),
    "2,800 × 2, differences": (2, "compute = lambda: noise_correlation(responses, zscore=False, differences=True)"),
    "1,400 × 4, z-scored": (4, "compute = lambda: noise_correlation(responses)"),
    "1,400 × 4, z-scored, units silent for some stimuli": (
        4,
        "values[:100, :, ::2] = 0\ncompute = lambda: noise_correlation(responses)",
    ),
    "1,400 × 4, z-scored, a trial absent": (4, "values[0, 3] = np.nan\ncompute = lambda: noise_correlation(responses)"),
}
MEASURE = """
import json, re, sys, time
from pathlib import Path
import numpy as np
import xarray as xr
from neurovar.statistics.estimation import noise_correlation
trials = np.random.default_rng(0).standard_normal(({n_trials}, {n_units}), dtype=np.float32)
values = trials.reshape(-1, {n_repeats}, {n_units})
ids = np.arange(len(values))
responses = xr.DataArray(values, dims=("stimulus", "repeat", "unit"), coords={{"stimulus": ids}})
{case}
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])  # of Linux, in kB
before = peak()
start = time.perf_counter()
result = compute()
seconds = time.perf_counter() - start
print(json.dumps([seconds, (peak() - before) * 1024 / result.nbytes, str(result.dtype)]))
"""


def measure(n_repeats: int, case: str) -> tuple[float, float]:
    """Seconds, and the peak of memory beyond the data as a multiple of the result's, in a process of its own."""
    code = MEASURE.format(n_trials=N_TRIALS, n_units=N_UNITS, n_repeats=n_repeats, case=case)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    seconds, memory, dtype = json.loads(done.stdout)
    assert dtype == "float32"
    return seconds, memory


@pytest.mark.parametrize("name", CASES)
def bench_noise_correlation(name: str) -> None:
    n_repeats, case = CASES[name]
    runs = [(measure(n_repeats, PRODUCT), measure(n_repeats, case)) for _ in range(N_RUNS)]
    ratio = statistics.median(ours[0] / product[0] for product, ours in runs)
    seconds = [statistics.median(run[i][0] for run in runs) for i in (0, 1)]
    memory = [statistics.median(run[i][1] for run in runs) for i in (0, 1)]
    print(f"\n{N_UNITS:,} units, {name}: {seconds[1]:.2f} s, {memory[1]:.2f} × the memory of the result")
    print(f"  X.T @ X: {seconds[0]:.2f} s, {memory[0]:.2f} ×; time as a multiple, median of {N_RUNS}: {ratio:.2f}")
