"""Handwritten digits that come with scikit-learn, to train a classifier without any file (Alpaydin, Kaynak 1998)."""

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.source import Source, choose
from neurovar_datasets.fashion_mnist import as_dataset

SPLITS = {"train": slice(None, 1437), "test": slice(1437, None)}
SIDE = 8
BRIGHTEST = 16

SOURCE = Source(
    name="digits (scikit-learn)",
    title="Optical Recognition of Handwritten Digits",
    doi="10.24432/C50P49",
    citation=(
        "Alpaydin E, Kaynak C (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning Repository; "
        "the test part, as scikit-learn distributes it."
    ),
    license="CC-BY-4.0",
    license_url="https://creativecommons.org/licenses/by/4.0/",
    redistribution=True,
    derivatives=True,
    units="intensity",
    n_stimuli="1,797",
)


def sessions() -> tuple[str, ...]:
    """The names of the splits.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()
    ('train', 'test')
    """
    return tuple(SPLITS)


def load(split: str, *, size: int = 28) -> xr.Dataset:
    """The images of one split and their digits, in the form of `fashion_mnist.load`.

    The 8 × 8 images are enlarged by bilinear interpolation between pixel centres, as by
    `torch.nn.functional.interpolate(..., mode="bilinear", align_corners=False)`.

    Parameters
    ----------
    split : str
        "train" (the first 1437) or "test" (the other 360).
    size : int, optional
        Rows and columns of an image, at least 8.

    Returns
    -------
    Dataset
        Of `images` (stimulus, channel, row, column), float32 in [0, 1], of shape (n, 1, size, size), and `labels`
        (stimulus), int64 from 0 to 9.

    Raises
    ------
    ValueError
        If the split is unknown or the size too small.

    References
    ----------
    Alpaydin, Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49

    Examples
    --------
    >>> load("test").images.shape
    (360, 1, 28, 28)
    """
    part = choose(split, SPLITS, kind="split")
    if size < SIDE:
        raise ValueError(f"expected a size of at least {SIDE}, got {size}")
    from sklearn.datasets import load_digits

    digits = load_digits()
    weights = _interpolation(size)
    images = (weights @ digits.images[part] @ weights.T / BRIGHTEST).astype(np.float32)
    classes = tuple(map(str, range(10)))
    return as_dataset(images, digits.target[part], split=split, classes=classes, attrs=SOURCE.attrs())


def _interpolation(size: int) -> np.ndarray:
    """Weights (size, 8) of linear interpolation between pixel centres, constant beyond the outermost."""
    # Pixel i of `size` covers [i, i + 1)·8/size of the 8 source pixels; − 0.5 goes from edges to
    # centres.
    centres = np.clip((np.arange(size) + 0.5) * SIDE / size - 0.5, 0, SIDE - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(SIDE)))
