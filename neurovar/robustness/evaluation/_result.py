"""The form of what `evaluate` returns."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import xarray as xr

DIMS = ("noise", "seed", "draw_seed", "condition", "stimulus")
VARIABLES = {"correct": (*DIMS, "k"), "hits": DIMS, "survived": (*DIMS, "k"), "ran": DIMS[:4]}
Interval = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def validate(result: xr.Dataset) -> None:
    """Raise a ValueError unless this has the variables, dims and coords that `evaluate` gives."""
    for name, dims in VARIABLES.items():
        if name not in result:
            raise ValueError(f"expected what evaluate returns, with {', '.join(VARIABLES)}, got no {name}")
        if set(result[name].dims) != set(dims):
            raise ValueError(f"expected {name} over {', '.join(dims)}, got {', '.join(map(str, result[name].dims))}")
        kind = "integers" if name == "hits" else "bool"
        if (name == "hits") != (result[name].dtype.kind in "iu") or (name != "hits" and result[name].dtype != bool):
            raise ValueError(f"expected {name} as {kind}, got {result[name].dtype}")
    require(result, ("noise", "k"))
    if len(set(result["noise"].values)) < result.sizes["noise"]:
        raise ValueError(f"expected noises of different names, got {', '.join(map(str, result['noise'].values))}")


def require(result: xr.Dataset, names: Iterable[str]) -> None:
    """Raise a ValueError unless this has these coordinates."""
    for name in names:
        if name not in result.coords:
            raise ValueError(f"expected what evaluate returns, with a coordinate {name}, got {list(result.coords)}")


def measured(result: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    """Each measure of accuracy by name: (noise, seed, draw_seed, condition, stimulus), NaN for what was not run."""
    numbers = [int(k) for k in result["k"].values]
    yield "expected", (result["hits"] / np.float32(max(numbers))).where(result["ran"])
    for k in numbers:
        yield f"ensemble of {k}", ensemble(result, k)
    for k in numbers:
        if k > 1:
            yield f"worst of {k}", result["survived"].sel(k=k, drop=True).astype(np.float32).where(result["ran"])


def ensemble(result: xr.Dataset, k: int) -> xr.DataArray:
    """Whether the argmax of the logits summed over k draws is right, as 0 and 1, NaN for what was not run."""
    return result["correct"].sel(k=k, drop=True).astype(np.float32).where(result["ran"])
