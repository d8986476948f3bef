"""What loaders give: inputs with ids and labels, batch by batch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

IMAGE_DIMS = ("stimulus", "channel", "row", "column")
INPUTS = ("image", "images", "inputs", "pixel_values")
TAKEN = ("repeat", "unit", "time", "responses", "layer", "channel", "row", "column", "token", "modification")


class Shown(NamedTuple):
    """A batch of inputs, and what is known of each stimulus."""

    inputs: Tensor
    stimulus: np.ndarray
    labels: dict[str, np.ndarray]


def batches(images: xr.DataArray, *, batch_size: int = 64) -> Iterator[dict[str, Any]]:
    """Labelled images as batches: a dict of "image", "stimulus" and each further coordinate of stimulus.

    Images in dask (a file larger than memory) are computed batch by batch.

    Parameters
    ----------
    images : xarray.DataArray
        (stimulus, channel, row, column), values as the network takes them, with stimulus ids.
    batch_size : int, optional
        Images in a batch.

    Returns
    -------
    iterator of dict
        "image" is a float32 tensor (stimulus, channel, row, column); the others are arrays (stimulus,).

    Raises
    ------
    ValueError
        For images of another form, or a batch size below 1.

    Examples
    --------
    >>> images = xr.DataArray(np.zeros((5, 1, 2, 2), np.float32), dims=IMAGE_DIMS, coords={"stimulus": list("abcde")})
    >>> [batch["stimulus"].tolist() for batch in batches(images, batch_size=3)]
    [['a', 'b', 'c'], ['d', 'e']]
    """
    if images.dims != IMAGE_DIMS or "stimulus" not in images.coords or not images.size:
        got = f"dims {images.dims}, shape {images.shape}, coords {list(images.coords)}"
        raise ValueError(f"expected images with dims {IMAGE_DIMS} and stimulus ids, got {got}")
    if batch_size < 1:
        raise ValueError(f"expected batches of at least 1 image, got {batch_size}")
    return (
        _labelled(images.isel(stimulus=slice(start, start + batch_size))) for start in range(0, len(images), batch_size)
    )


def _labelled(images: xr.DataArray) -> dict[str, Any]:
    if images.dtype != np.float32 or not np.isfinite(images.values).all():
        raise ValueError(f"expected finite float32 images, got {images.dtype} or NaN")
    coords = {str(name): coord.values for name, coord in images.coords.items() if coord.dims == ("stimulus",)}
    return {"image": torch.tensor(images.values.copy()), **coords}


def read(loader: Iterable[Any]) -> Iterator[Shown]:
    """Each batch that a loader gives, checked against those before it.

    Raises
    ------
    ValueError : if there is none, one has another form than the first, or an id comes twice.
    """
    first: Shown | None = None
    n_before, seen = 0, set[Any]()
    for batch in loader:
        shown = _unpacked(batch, n_before)
        first = first or shown
        _check_alike(shown, first)
        for stimulus in shown.stimulus.tolist():
            if stimulus in seen:
                raise ValueError(f"expected unique stimulus ids, got {stimulus!r} twice")
            seen.add(stimulus)
        # Ids count through the whole loader where it gives none of its own.
        n_before += len(shown.inputs)
        yield shown
    if first is None:
        raise ValueError("expected at least one batch, got none (a generator can be read only once)")


def _check_alike(shown: Shown, first: Shown) -> None:
    if shown.inputs.shape[1:] != first.inputs.shape[1:] or shown.inputs.dtype != first.inputs.dtype:
        wanted, got = (f"{tuple(batch.inputs.shape[1:])} of {batch.inputs.dtype}" for batch in (first, shown))
        raise ValueError(f"expected every input to be {wanted}, as the first, got {got}")
    if shown.labels.keys() != first.labels.keys():
        raise ValueError(f"expected labels {list(first.labels)} with every batch, got {list(shown.labels)}")


def _unpacked(batch: Any, n_before: int) -> Shown:
    """Inputs and labels of one batch; ids count from `n_before` where the loader gives none."""
    inputs, labels = _parts(batch)
    inputs = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not len(inputs):
        got = f"shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"expected a batch to be a tensor (stimulus, …), got {got}")
    columns = {name: _column(name, values, len(inputs)) for name, values in labels.items()}
    stimulus = columns.pop("stimulus", np.arange(n_before, n_before + len(inputs)))
    taken = [name for name in columns if name in TAKEN]
    if taken:
        raise ValueError(f"expected labels with names of their own, got {taken[0]!r}")
    return Shown(inputs, stimulus, columns)


def _parts(batch: Any) -> tuple[Any, Mapping[str, Any]]:
    """The inputs, and whatever came with them by name."""
    if isinstance(batch, Mapping):
        names = [name for name in INPUTS if name in batch]
        if len(names) != 1:
            raise ValueError(f"expected a batch with one of {', '.join(INPUTS)}, got {', '.join(map(str, batch))}")
        return batch[names[0]], {str(name): values for name, values in batch.items() if name != names[0]}
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        if len(batch) not in (1, 2):
            raise ValueError(
                f"expected a batch of inputs or of (inputs, labels), got {len(batch)} parts; name them: "
                '{"image": …, "stimulus": …, "label": …}'
            )
        return batch[0], {"label": batch[1]} if len(batch) == 2 else {}
    return batch, {}


def _column(name: str, values: Any, n: int) -> np.ndarray:
    column = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    # A loader's default collation leaves texts as a list, which NumPy takes for objects where pandas or lists of str
    # gave them; xarray and Zarr want a fixed width.
    if column.dtype.kind == "O" and all(isinstance(value, str) for value in column.ravel()):
        column = column.astype(str)
    if column.shape != (n,) or column.dtype.kind not in "biufUSmM":
        got = f"{column.dtype} of shape {column.shape}"
        raise ValueError(f"expected {name!r} to be a number, a text or a time for each of {n} stimuli, got {got}")
    return column
