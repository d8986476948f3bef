"""Fashion-MNIST: 70,000 grey 28 × 28 pictures of ten kinds of clothes (Xiao, Rasul, Vollgraf 2017)."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, CorruptDataError, File, Source, choose

DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
_COMMIT = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141"
_UNSIGNED_BYTE = 0x08
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _file(name: str, sha256: str, size: int) -> File:
    path = f"fashion_mnist/{name}-ubyte.gz"
    return File(path, f"{_COMMIT}/data/fashion/{name}-ubyte.gz", f"sha256:{sha256}", size, folder=DEBIAN_FOLDER)


SPLITS = {
    "train": (
        60_000,
        _file("train-images-idx3", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47_040_016),
        _file("train-labels-idx1", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60_008),
    ),
    "test": (
        10_000,
        _file("t10k-images-idx3", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7_840_016),
        _file("t10k-labels-idx1", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10_008),
    ),
}

SOURCE = Source(
    name="fashion_mnist",
    title="Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
    doi="10.48550/arXiv.1708.07747",
    citation=(
        "Xiao H, Rasul K, Vollgraf R (2017). Fashion-MNIST: a novel image dataset for benchmarking machine learning "
        "algorithms. arXiv:1708.07747."
    ),
    license="MIT",
    license_url=f"{_COMMIT}/LICENSE",
    redistribution=True,
    derivatives=True,
    units="intensity",
    n_stimuli="60,000 + 10,000",
    sessions={split: (pixels, labels) for split, (_, pixels, labels) in SPLITS.items()},
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


def load(split: str, *, path: AnyPath | None = None) -> xr.Dataset:
    """The images of one split and their classes.

    Parameters
    ----------
    split : str
        "train" (60,000) or "test" (10,000).
    path : path-like, optional
        A folder that has the split's two `.gz` files; by default they are searched for, in the folder of the Debian
        package `dataset-fashion-mnist` too.

    Returns
    -------
    Dataset
        Of `images` (stimulus, channel, row, column), float32 in [0, 1], of shape (n, 1, 28, 28), and `labels`
        (stimulus), int64 from 0 to 9; the names of the classes are in attrs["classes"].

    Raises
    ------
    ValueError
        If the split is unknown, or `path` is not a folder with the files.
    CorruptDataError, DataUnavailableError
        If a file is not what was declared, or cannot be had.

    References
    ----------
    Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747

    Examples
    --------
    >>> load("validation")
    Traceback (most recent call last):
    ...
    ValueError: expected the split to be one of 'train', 'test', got 'validation'
    """
    n_images, *files = choose(split, SPLITS, kind="split")
    if path is not None and not Path(path).is_dir():
        raise ValueError(f"expected path to be a folder with {' and '.join(file.name for file in files)}, got {path}")
    pixels, labels = (find(file, path=path) for file in files)
    images = np.divide(_read_idx(pixels, (n_images, 28, 28)), 255, dtype=np.float32)
    return as_dataset(images, _read_idx(labels, (n_images,)), split=split, classes=CLASSES, attrs=SOURCE.attrs(*files))


def as_dataset(
    images: np.ndarray, labels: np.ndarray, *, split: str, classes: tuple[str, ...], attrs: dict[str, str]
) -> xr.Dataset:
    """Label grey images (n, row, column) and their classes (n,) as `load` returns them."""
    return xr.Dataset(
        {
            "images": (("stimulus", "channel", "row", "column"), images[:, None], {"units": attrs["units"]}),
            "labels": ("stimulus", labels.astype(np.int64)),
        },
        coords={"stimulus": [f"{split}{number:05d}" for number in range(len(images))]},
        attrs=attrs | {"split": split, "classes": list(classes)},
    )


def _read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The unsigned bytes of a compressed idx file: two zeros, type, number of dims, each dim as >u4, the values."""
    header = struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)
    expected = len(header) + math.prod(shape)
    with gzip.open(path) as stream:
        content = stream.read(expected + 1)
    if not content.startswith(header):
        got = content[: len(header)].hex(" ")
        raise CorruptDataError(f"{path}: expected an idx file of bytes, shape {shape}: {header.hex(' ')}, got {got}")
    if len(content) != expected:
        got = f"{len(content)}{' or more' * (len(content) > expected)}"
        raise CorruptDataError(f"{path}: expected {expected} bytes when unpacked, got {got}")
    return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(shape)
