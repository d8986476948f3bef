"""Images for a network to see: those of a public source, an array, or a folder; in the form that it takes."""

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch.nn import functional as F

from neurovar.cli.commands._recordings import UsageError
from neurovar.networks import IMAGE_DIMS

SUFFIXES = (".png", ".jpg", ".jpeg")
LABELLED = ("fashion_mnist", "digits")
"""Public sources whose images have classes."""
MOST_PIXELS = 1 << 26
"""Of one image that is read; larger ones are refused."""


def open_images(what: str, *, session: str | None = None) -> xr.DataArray:
    """Images (stimulus, channel, row, column) in [0, 1], float32.

    Parameters
    ----------
    what : a public source with images; an .npy array (stimulus, channel, row, column) of bytes, or of numbers from 0 to
        1; or a folder of PNG and JPEG files of one size, whose stems become the stimulus ids.

    Raises
    ------
    UsageError : if there are no images of that name, or no such path.
    ValueError : if a file is not what it should be.
    """
    import neurovar_datasets

    if what in neurovar_datasets.sources():
        return _of_source(what, session)
    path = Path(what)
    if path.is_dir() and path.suffix != ".zarr":
        return _of_folder(path)
    if path.suffix == ".npy" and path.is_file():
        return _labelled(_in_range(_array(path), path))
    raise UsageError(
        f"{what}: expected images: a public source that has some, an .npy file or a folder of pictures, with --images"
    )


def open_labelled(what: str) -> xr.Dataset:
    """Images as `open_images` has them and `labels` (stimulus), int64 from 0: what a classifier is tested on.

    Parameters
    ----------
    what : "fashion_mnist" or "digits", of which it is the test images; or an .npz with the arrays `images`, as an .npy
        has them, and `labels`.

    Raises
    ------
    UsageError : if there is neither.
    ValueError : if a file is not what it should be.
    """
    import neurovar_datasets
    from neurovar_datasets import npz

    if what in LABELLED:
        return getattr(neurovar_datasets, what).load("test")[["images", "labels"]]
    path = Path(what)
    if path.suffix != ".npz" or not path.is_file():
        raise UsageError(f"{what}: expected images with labels: {', '.join(LABELLED)}, or an .npz file, with --images")
    arrays = npz(path, ("images", "labels"))
    images, labels = _labelled(_in_range(arrays["images"], path)), arrays["labels"]
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
        got = f"{labels.dtype} {labels.shape}"
        raise ValueError(f"{path}: expected {len(images)} labels, integers from 0, for as many images, got {got}")
    return xr.Dataset({"images": images, "labels": ("stimulus", labels.astype(np.int64))})


def as_input(images: xr.DataArray, shape: tuple[int, ...]) -> xr.DataArray:
    """Resized to `shape` (channel, row, column), bilinearly; colours averaged to grey, or grey repeated."""
    channels, *size = shape
    values = torch.tensor(images.values)
    if values.shape[1] != channels:
        if 1 not in (values.shape[1], channels):
            raise UsageError(f"expected images with 1 or {channels} channels, got {values.shape[1]}")
        values = values.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    if list(values.shape[2:]) != size:
        values = F.interpolate(values, size=size, mode="bilinear", antialias=True).clamp(0, 1)
    return _labelled(values.numpy(), images["stimulus"].values)


def _of_source(name: str, session: str | None) -> xr.DataArray:
    import neurovar_datasets

    module = getattr(neurovar_datasets, name)
    if hasattr(module, "images"):
        return module.images(session=session)
    loaded = module.load("test") if name in LABELLED else None
    if loaded is None:
        raise UsageError(f"expected a source with images, got {name}, which has none: give some with --images")
    return loaded["images"]


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: expected an array of images, could not read it: {error}") from error


def _in_range(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim != 4 or not values.size or values.dtype.kind not in "uf":
        raise ValueError(
            f"{path}: expected images (stimulus, channel, row, column) of bytes or floats, got {values.dtype} "
            f"{values.shape}"
        )
    scaled = values / np.float32(255) if values.dtype == np.uint8 else values
    if not (np.isfinite(scaled).all() and scaled.min() >= 0 and scaled.max() <= 1):
        raise ValueError(f"{path}: expected pixels from 0 to 1, got {scaled.min():g} to {scaled.max():g}")
    return scaled.astype(np.float32)


def _of_folder(folder: Path) -> xr.DataArray:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: expected PNG or JPEG files, got none")
    pictures = [_picture(path) for path in files]
    shapes = {picture.shape: path.name for path, picture in zip(files, pictures)}
    if len(shapes) > 1:
        raise ValueError(f"{folder}: expected images of one size, got {' and '.join(map(str, list(shapes)[:2]))}")
    return _labelled(np.stack(pictures), np.array([path.stem for path in files]))


def _picture(path: Path) -> np.ndarray:
    """(3, row, column), from 0 to 1."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width} × {picture.height} pixels")
            rgb = np.asarray(picture.convert("RGB"), dtype=np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected a PNG or JPEG image, could not read it: {error}") from error
    return rgb.transpose(2, 0, 1) / 255


def _labelled(values: np.ndarray, ids: np.ndarray | None = None) -> xr.DataArray:
    stimulus = np.arange(len(values)) if ids is None else ids
    return xr.DataArray(values, dims=IMAGE_DIMS, coords={"stimulus": stimulus})
