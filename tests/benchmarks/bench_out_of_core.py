"""The noise covariance of 20,000 units from 50,000 trials, float32 (4 GB), below 2 GB of memory, on dask workers.

Wanted: two workers of one thread at least 1.7 times as fast as one; all processes together below 2 GB. The result
(1.6 GB) goes to a Zarr store, tile by tile. Printed, not asserted: `make benchmarks`; takes about 20 minutes on two
cores. NEUROVAR_BENCH_UNITS=4000 makes it smaller.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

N_UNITS = int(os.environ.get("NEUROVAR_BENCH_UNITS", "20000"))
N_STIMULI, N_REPEATS, CHUNK = 25_000, 2, 250
MEASURE = """
import json, re, sys, time
from pathlib import Path
import xarray
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from neurovar.responses import open_zarr
from neurovar.statistics import noise_covariance

def peak(dask_worker=None):
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # of Linux

if __name__ == "__main__":
    path, result, n_workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    limits = {"memory_limit": 1.6e9 / n_workers, "dashboard_address": None}
    options = {"n_workers": n_workers, "threads_per_worker": 1} | limits
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        lazy = open_zarr(path)
        start = time.perf_counter()
        matrix = noise_covariance(lazy)
        checked = time.perf_counter() - start
        matrix.data.to_zarr(result)
        seconds = time.perf_counter() - start
        peaks = list(client.run(peak).values())
        print(json.dumps({"seconds": seconds, "checking": checked, "workers": peaks, "client": peak()}))
"""
WRITE = """
import sys
import numpy as np
import xarray as xr
import dask.array as da
from neurovar.responses import save
path, n_stimuli, n_repeats, n_units, chunk = sys.argv[1], *map(int, sys.argv[2:])
chunks = (chunk, n_repeats, n_units)
values = da.random.default_rng(0).standard_normal((n_stimuli, *chunks[1:]), chunks=chunks, dtype=np.float32)
coords, attrs = {"stimulus": np.arange(n_stimuli)}, {"units": "dF/F"}
responses = xr.DataArray(values, coords, ("stimulus", "repeat", "unit"), attrs=attrs)
save(responses, path, chunk_bytes=chunk * n_repeats * n_units * 4)
"""


def bench_covariance(tmp_path: Path) -> None:
    path = tmp_path / "responses.zarr"
    sizes = [str(size) for size in (N_STIMULI, N_REPEATS, N_UNITS, CHUNK)]
    subprocess.run([sys.executable, "-c", WRITE, str(path), *sizes], check=True)
    script = tmp_path / "measure.py"
    script.write_text(MEASURE)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    seconds = {}
    print(f"\n{N_UNITS} units, {N_STIMULI * N_REPEATS} trials, {N_UNITS * N_STIMULI * N_REPEATS * 4 / 1e9:.1f} GB")
    for n_workers in (1, 2):
        command = [sys.executable, str(script), str(path), str(tmp_path / f"result{n_workers}.zarr"), str(n_workers)]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
        seconds[n_workers] = done["seconds"]
        together = (sum(done["workers"]) + done["client"]) / 1e9
        workers = ", ".join(f"{each / 1e9:.2f}" for each in done["workers"])
        print(
            f"  {n_workers} workers: {done['seconds']:.0f} s ({done['checking']:.0f} s of it to check the responses); "
            f"peak memory: workers {workers} GB, with the client {together:.2f} GB"
        )
    print(f"  two workers are {seconds[1] / seconds[2]:.2f} times as fast as one")
