"""Time and memory of the main job on the data at hand. Printed, not asserted: `make benchmarks`."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest


def memory(process: psutil.Process) -> int:
    """Bytes that the process and its workers hold, shared pages counted once (Linux) or by process."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            held = each.memory_full_info()
        except psutil.Error:
            continue
        total += getattr(held, "pss", held.rss)
    return total


@pytest.mark.parametrize("options", [(), ("--quick",)], ids=["full", "quick"])
def bench_quickstart(options: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "neurovar.cli", "quickstart", "--output", str(tmp_path / "report"), *options]
    start, peak = time.perf_counter(), 0
    with psutil.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory(process))
            time.sleep(0.5)
    assert process.returncode == 0
    print(f"\nquickstart {' '.join(options)}: {time.perf_counter() - start:.0f} s, peak {peak / 2**30:.2f} GiB")
