"""How long a session of Stringer's size takes to load, beside `scipy.io.loadmat`, and how much memory.

Wanted: at most 1.5 × the time and 2.5 × the memory of the array. Printed, not asserted: `make benchmarks`.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

SESSION = "natimg2800_M160825_MP027_2016-12-14"
N_STIMULI, N_REPEATS, N_CELLS = 2800, 2, 10_000
N_RUNS = 5
LOADERS = {
    "loadmat": "from scipy.io import loadmat\nload = lambda: loadmat(path)",
    "stringer2019_v1": (
        "from neurovar_datasets import stringer2019_v1\n"
        f"load = lambda: stringer2019_v1.load(session={SESSION!r}, path=path)"
    ),
}
MEASURE = """
import json, re, sys, time
from pathlib import Path
import scipy.io.matlab
path, small = sys.argv[1:]
{loader}
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])  # of Linux, in kB
path, large = small, path
load()
path, before = large, peak()
start = time.perf_counter()
loaded = load()
print(json.dumps([time.perf_counter() - start, peak() - before]))
"""


def write(path: Path, *, n_stimuli: int, n_cells: int, compressed: bool) -> None:
    """A file in the form of the published ones, with noise for responses."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat(np.arange(1, n_stimuli + 1), N_REPEATS))
    stat = np.empty((n_cells, 1), dtype=[("npix", object), ("redcell", object)])
    for cell in stat.ravel():
        cell["npix"], cell["redcell"] = 90.0, 0.0
    resp = rng.standard_gamma(0.3, (len(ids), n_cells), dtype=np.float32)
    stim = {"resp": resp, "istim": ids[:, None].astype(float), "spont": np.zeros((0, 0))}
    content = {"stim": stim, "med": rng.uniform(0, 500, (n_cells, 3)), "stat": stat}
    savemat(path, content, do_compression=compressed)


def measure(loader: str, path: Path, small: Path) -> tuple[float, float]:
    """Seconds and MB of one load in a process of its own, after a load of a small file."""
    command = [sys.executable, "-c", MEASURE.format(loader=LOADERS[loader]), str(path), str(small)]
    seconds, kilobytes = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return seconds, kilobytes * 1024 / 1e6


@pytest.mark.parametrize("compressed", [False, True])
def bench_load(tmp_path: Path, compressed: bool) -> None:
    path, small = tmp_path / "large.mat", tmp_path / "small.mat"
    write(path, n_stimuli=N_STIMULI, n_cells=N_CELLS, compressed=compressed)
    write(small, n_stimuli=10, n_cells=5, compressed=compressed)
    array = N_STIMULI * N_REPEATS * N_CELLS * 4 / 1e6
    runs = [{loader: measure(loader, path, small) for loader in LOADERS} for _ in range(N_RUNS)]
    print(f"\n{'compressed' if compressed else 'plain'} file, array of {array:.0f} MB, medians of {N_RUNS} runs")
    for loader in LOADERS:
        seconds, megabytes = (statistics.median(run[loader][i] for run in runs) for i in (0, 1))
        print(f"  {loader}: {seconds:.2f} s, {megabytes:.0f} MB, {megabytes / array:.2f} × the array")
    ratios = [run["stringer2019_v1"][0] / run["loadmat"][0] for run in runs]
    print(f"  time as a multiple of loadmat's: {statistics.median(ratios):.2f}")
