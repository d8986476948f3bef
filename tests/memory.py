"""How much memory a refusal takes."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pytest
from neurovar_datasets import CorruptDataError


def peak_of(function: Callable[[], object], message: str) -> int:
    """The most bytes that Python and NumPy hold until the function refuses."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptDataError, match=message):
            function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_rss(code: str) -> tuple[str, float]:
    """What another process prints, and by how many MB its memory grew while it ran the code."""
    script = (
        "import resource\n"
        "import numpy, h5py, scipy.io\n"
        "from neurovar_datasets._reading import hdf5 as _hdf5, mat as _mat\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try:\n    {code}\nexcept ValueError as error:\n    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *printed, megabytes = done.stdout.splitlines()
    return "\n".join(printed), float(megabytes)
