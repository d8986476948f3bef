"""Fashion-MNIST and the digits have one form; idx files of another form are refused."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import neurovar_datasets
import numpy as np
import pytest
import xarray as xr
from neurovar_datasets import CorruptDataError, digits, fashion_mnist
from servers import file_of, put


def idx(values: np.ndarray, *, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def small_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Declare the split "small" of three images with these files; gives the folder they are in."""

    def declare(pixels: bytes, labels: bytes) -> Path:
        contents = {"pixels.gz": pixels, "labels.gz": labels}
        for name, content in contents.items():
            put(tmp_path / name, gzip.compress(content))
        files = [file_of(content, path=f"f/{name}") for name, content in contents.items()]
        monkeypatch.setitem(fashion_mnist.SPLITS, "small", (3, *files))
        return tmp_path

    return declare


PIXELS = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def test_idx_files_become_images_and_labels(small_split: Callable[..., Path]) -> None:
    ds = fashion_mnist.load("small", path=small_split(idx(PIXELS), idx(LABELS)))
    np.testing.assert_allclose(ds.images.values[:, 0], PIXELS / 255, rtol=1e-6)
    assert (ds.images.dtype, ds.labels.dtype) == (np.float32, np.int64)
    assert ds.labels.values.tolist() == [7, 0, 9]
    assert ds.stimulus.values.tolist() == ["small00000", "small00001", "small00002"]
    assert ds.attrs["classes"][9] == "Ankle boot"


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (idx(PIXELS, kind=9), idx(LABELS), r"pixels.gz: expected an idx file of bytes, shape .*: 00 00 08 03"),
        (idx(PIXELS[:2]), idx(LABELS), r"shape \(3, 28, 28\): .* got 00 00 08 03 00 00 00 02"),
        (idx(PIXELS)[:-1], idx(LABELS), "pixels.gz: expected 2368 bytes when unpacked, got 2367$"),
        (idx(PIXELS) + b"!", idx(LABELS), "pixels.gz: expected 2368 bytes when unpacked, got 2369 or more"),
        (idx(PIXELS), idx(PIXELS), r"labels.gz: expected an idx file of bytes, shape \(3,\): 00 00 08 01"),
        (idx(PIXELS), b"\0\0", r"labels.gz: expected an idx file of bytes, shape \(3,\): .*, got 00 00"),
    ],
)
def test_idx_files_of_another_form_are_refused(
    small_split: Callable[..., Path], pixels: bytes, labels: bytes, message: str
) -> None:
    folder = small_split(pixels, labels)
    with pytest.raises(CorruptDataError, match=message):
        fashion_mnist.load("small", path=folder)


def test_the_path_of_fashion_mnist_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected path to be a folder with t10k-images-idx3"):
        fashion_mnist.load("test", path=put(tmp_path / "x.gz", b""))


@pytest.mark.parametrize("read", [fashion_mnist.load, digits.load])
def test_an_unknown_split_lists_the_known(read: Callable[..., xr.Dataset]) -> None:
    with pytest.raises(ValueError, match="expected the split to be one of 'train', 'test', got 'validation'"):
        read("validation")


@pytest.mark.skipif(
    not Path(fashion_mnist.DEBIAN_FOLDER).is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
@pytest.mark.parametrize(("split", "n_images"), [("train", 60_000), ("test", 10_000)])
def test_the_real_fashion_mnist(split: str, n_images: int) -> None:
    ds = fashion_mnist.load(split)
    assert ds.images.shape == (n_images, 1, 28, 28)
    assert ds.images.dtype == np.float32
    assert (float(ds.images.min()), float(ds.images.max())) == (0, 1)
    np.testing.assert_array_equal(np.bincount(ds.labels), np.full(10, n_images // 10))


def test_digits_have_the_form_of_fashion_mnist(small_split: Callable[..., Path]) -> None:
    fashion = fashion_mnist.load("small", path=small_split(idx(PIXELS), idx(LABELS)))
    splits = {split: digits.load(split) for split in ("train", "test")}
    assert {split: ds.sizes["stimulus"] for split, ds in splits.items()} == {"train": 1437, "test": 360}
    for ds in splits.values():
        assert ds.images.shape[1:] == (1, 28, 28)
        assert all(ds[name].dims == fashion[name].dims for name in ("images", "labels"))
        assert all(ds[name].dtype == fashion[name].dtype for name in ("images", "labels"))
        assert set(fashion.attrs) - set(ds.attrs) == {"hash"}
        assert float(ds.images.min()) >= 0
        assert float(ds.images.max()) <= 1
        assert ds.attrs["source"] == "digits (scikit-learn)"


@pytest.mark.parametrize("size", [8, 11, 28])
def test_digits_are_interpolated_as_torch_does(size: int) -> None:
    import torch
    from sklearn.datasets import load_digits

    raw = torch.as_tensor(load_digits().images[1437:, None] / 16)
    expected = torch.nn.functional.interpolate(raw, size=(size, size), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(digits.load("test", size=size).images, expected, atol=1e-6)


def test_digits_are_not_made_smaller() -> None:
    with pytest.raises(ValueError, match="expected a size of at least 8, got 7"):
        digits.load("train", size=7)


# Declarations and package


def test_the_files_of_fashion_mnist_are_declared() -> None:
    assert fashion_mnist.sessions() == digits.sessions() == ("train", "test")
    assert digits.SOURCE.sessions == {}
    for files in fashion_mnist.SOURCE.sessions.values():
        assert [file.hash.partition(":")[0] for file in files] == ["sha256", "sha256"]
        assert all(file.size and file.path.startswith("fashion_mnist/") for file in files)


def test_every_source_declares_what_a_user_must_know() -> None:
    for module, source in neurovar_datasets.sources().items():
        assert all([source.name, source.title, source.citation, source.license, source.units]), module
        assert source.doi.startswith("10."), module
        assert source.license_url.startswith("http"), module
        files = [file for files in source.sessions.values() for file in files]
        assert all(file.url.startswith("http") for file in files), module
        assert all(file.path.startswith(f"{module}/") for file in files), module
        json.dumps(source.attrs(*files))


def test_modules_load_when_first_touched() -> None:
    assert neurovar_datasets.__getattr__("digits") is digits
    with pytest.raises(AttributeError, match="No neurovar_datasets attribute imagenet"):
        _ = neurovar_datasets.imagenet
