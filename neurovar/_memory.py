"""Out of memory, foreseen."""

import os
from pathlib import Path

import torch

NEGLIGIBLE = 64 * 2**20
"""Bytes below which nobody asks."""
GB = 1e9


def available(device: torch.device) -> float:
    """Bytes free on a device; infinitely many where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_free(), _limit()) if device.type == "cpu" else float("inf")


def _free() -> float:
    """What Linux says it can give without swapping; elsewhere all there is."""
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
    """What a container may take."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return float("inf")


def require_matrix(n: int, dtype: torch.dtype, device: torch.device, *, copies: int = 1) -> None:
    """Raise unless `copies` matrices over n units fit into what is free on the device.

    Raises
    ------
    ValueError : with the size, and the structure that would fit.
    """
    needed = copies * n**2 * dtype.itemsize
    if needed <= NEGLIGIBLE or needed <= (free := available(device)):
        return
    raise ValueError(
        f"expected a matrix that fits into memory, got {n} units: {needed / GB:.1f} GB of {free / GB:.1f} "
        f"GB free on {device.type}; a LowRankPlusDiagonal of rank 64, with its leading_eigenvalues, takes "
        f"{65 * n * dtype.itemsize / GB:.2g} GB"
    )
