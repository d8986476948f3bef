"""How long binning a large NWB recording takes, and its memory, beside np.searchsorted alone. Printed, not asserted.

500 units, 20 million spikes, 118 images × 50, in the layout of Allen's Visual Coding; read in a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

N_UNITS, N_SPIKES, N_IMAGES, N_REPEATS = 500, 20_000_000, 118, 50
DURATION = 9600.0
WINDOW = (0.05, 0.25)
SCENES = "intervals/natural_scenes_presentations"
TIMED = """
import json, resource, sys, time
{imports}
start = time.perf_counter()
{code}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([time.perf_counter() - start, peak, list(shape), total]))
"""
LOAD = """
counts = allen_visual_coding.load(path=sys.argv[1], window=(0.05, 0.25){options})
shape, total = counts.shape, float(counts.sum())
"""
SEARCHSORTED = """
with h5py.File(sys.argv[1]) as file:
    times, ends = file["units/spike_times"][()], file["units/spike_times_index"][()]
    onset = file["intervals/natural_scenes_presentations/start_time"][()]
at = np.stack([onset + 0.05, onset + 0.25])
shape = (len(ends), len(onset))
counts = [np.diff(np.searchsorted(unit, at), axis=0)[0] for unit in np.split(times, ends[:-1])]
total = float(np.sum(counts))
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("nwb") / "session.nwb"
    rates = rng.lognormal(size=N_UNITS)
    n_each = rng.multinomial(N_SPIKES, rates / rates.sum())
    onset = 1000 + 0.25 * np.arange(N_IMAGES * N_REPEATS)
    columns = {
        "units": {
            "id": np.arange(N_UNITS),
            "spike_times": np.concatenate([np.sort(rng.uniform(0, DURATION, n)) for n in n_each]),
            "spike_times_index": np.cumsum(n_each),
            "peak_channel_id": np.arange(N_UNITS),
        },
        "general/extracellular_ephys/electrodes": {
            "id": np.arange(N_UNITS),
            "location": ["VISp"] * N_UNITS,
            "group_name": ["probeA"] * N_UNITS,
        },
        SCENES: {
            "id": np.arange(len(onset)),
            "start_time": onset,
            "stop_time": onset + 0.25,
            "frame": rng.permutation(np.repeat(np.arange(float(N_IMAGES)), N_REPEATS)),
        },
    }
    with h5py.File(path, "w") as file:
        file["general/session_id"], file["general/subject/subject_id"] = "1", "2"
        for group, values in columns.items():
            for name, data in values.items():
                file[f"{group}/{name}"] = data
    return path


def measured(path: Path, imports: str, code: str) -> tuple[float, float, list[int], float]:
    """Seconds after the imports, peak of memory in MiB, shape and sum of the counts: the fastest of three."""
    script = TIMED.format(imports=imports, code=code)
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
        runs.append(tuple(json.loads(done.stdout)))
    return min(runs)


@pytest.mark.parametrize("options", ["", ", bin_width=0.05"])
def bench_load(recording: Path, options: str) -> None:
    least, _, _, expected = measured(recording, "import h5py, numpy as np", SEARCHSORTED)
    imports = "from neurovar_datasets import allen_visual_coding; import h5py"
    seconds, memory, shape, total = measured(recording, imports, LOAD.format(options=options))
    assert total == expected
    size = recording.stat().st_size / 2**20
    print(
        f"\n{N_UNITS} units, {N_SPIKES:,} spikes ({size:.0f} MiB) to {' × '.join(map(str, shape))}: {seconds:.2f} s, "
        f"peak {memory:.0f} MiB; reading and np.searchsorted alone {least:.2f} s, {seconds / least:.1f} ×"
    )
