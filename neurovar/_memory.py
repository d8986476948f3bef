"""How much memory a computation needs, so that one that cannot succeed is refused before anything is allocated.

A matrix over 200,000 units takes 160 GB in float32: without a check the process would be ended by the system, or the
machine would swap for hours. Whatever allocates an array that grows with the square of the units, or with a size that a
file may claim, asks here first.
"""

import os
from pathlib import Path

import torch

# Bytes up to which nothing is asked: reading the system's files takes longer than such an allocation.
NEGLIGIBLE = 64 * 2**20
GB = 1e9


def available(device: torch.device) -> float:
    """Bytes free on a device; infinitely many where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_free(), _limit()) if device.type == "cpu" else float("inf")


def _free() -> float:
    """What Linux can give without swapping; on other systems all the memory there is."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")


def _limit() -> float:
    """The most that the container may take (cgroup v2); "max", which is no number, where there is no limit."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return float("inf")


def _missing(needed: int, device: torch.device) -> float | None:
    """The bytes that are free, where they are fewer than needed."""
    if needed <= NEGLIGIBLE or needed <= (free := available(device)):
        return None
    return free


def require_matrix(n: int, dtype: torch.dtype, device: torch.device, *, copies: int = 1) -> None:
    """Raise unless `copies` matrices over n units fit into what is free on the device.

    Raises
    ------
    ValueError
        With the size, and the structure that would fit.
    """
    needed = copies * n**2 * dtype.itemsize
    free = _missing(needed, device)
    if free is not None:
        raise ValueError(
            f"expected a matrix that fits into memory, got {n} units: {needed / GB:.1f} GB of {free / GB:.1f} "
            f"GB free on {device.type}; a LowRankPlusDiagonal of rank 64, with its leading_eigenvalues, takes "
            f"{65 * n * dtype.itemsize / GB:.2g} GB"
        )


def require_numbers(count: int, dtype: torch.dtype, device: torch.device, *, of: str) -> None:
    """Raise unless so many numbers fit into what is free on the device.

    Raises
    ------
    ValueError
        With the size, and what the numbers are: `of`.
    """
    needed = count * dtype.itemsize
    free = _missing(needed, device)
    if free is not None:
        raise ValueError(
            f"expected {of} to fit into memory, got {needed / GB:.1f} GB of {free / GB:.1f} GB free on {device.type}; "
            "ask for fewer at a time, or noise over fewer units"
        )
