"""How long starting takes, beside an interpreter that does nothing. Printed, not asserted: `make benchmarks`."""

import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

COMMANDS = {
    "import neurovar": ("-c", "import neurovar"),
    "neurovar --help": ("-m", "neurovar", "--help"),
}


def seconds(arguments: Sequence[str], *, repeats: int = 5) -> float:
    """The least wall-clock time of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("name", COMMANDS)
def bench_start(name: str) -> None:
    empty, ours = seconds(("-c", "pass")), seconds(COMMANDS[name])
    print(f"\n{name}: {ours:.3f} s, {ours / empty:.1f} × an empty interpreter, {ours - empty:.3f} s more")
