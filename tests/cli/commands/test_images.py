"""Images for a network: from a source, an array or a folder, in the form that it takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurovar.cli.commands._images import as_input, open_images


def write_pictures(folder: Path, *sizes: tuple[int, int]) -> Path:
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (255, 51, 0)).save(folder / f"picture{number}.png")
    return folder


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    images = open_images(str(write_pictures(tmp_path, (5, 4), (5, 4))))
    assert images.shape == (2, 3, 4, 5) and images.dtype == np.float32
    assert images["stimulus"].values.tolist() == ["picture0", "picture1"]
    np.testing.assert_allclose(images[0, :, 0, 0], [1, 0.2, 0], atol=1e-6)


def test_an_array_of_bytes_or_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, size=(3, 1, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "bytes.npy", values)
    np.save(tmp_path / "numbers.npy", values / 255)
    for name in ("bytes", "numbers"):
        images = open_images(str(tmp_path / f"{name}.npy"))
        assert images.dtype == np.float32 and images["stimulus"].values.tolist() == [0, 1, 2]
        np.testing.assert_allclose(images, values / 255, atol=1e-6)


def test_a_source_that_is_built_in() -> None:
    images = open_images("digits")
    assert images.dims == ("stimulus", "channel", "row", "column") and images.sizes["channel"] == 1


@pytest.mark.data
def test_the_images_that_v4_saw() -> None:
    images = open_images("cowley2023_v4", session="210325")
    assert images.shape == (640, 3, 112, 112)
    assert as_input(images[:2], (1, 28, 28)).shape == (2, 1, 28, 28)


def test_into_the_form_that_a_network_takes(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.stack([np.full((3, 8, 8), 0.2), np.full((3, 8, 8), 0.6)]))
    images = open_images(str(tmp_path / "x.npy"))
    assert as_input(images, (3, 8, 8)).equals(images)
    grey = as_input(images, (1, 4, 6))
    assert grey.shape == (2, 1, 4, 6)
    np.testing.assert_allclose(grey[1], 0.6, atol=1e-6)
    assert as_input(grey, (3, 4, 6)).shape == (2, 3, 4, 6)
    with pytest.raises(ValueError, match="expected images with 1 or 4 channels, got 3"):
        as_input(images, (4, 8, 8))


BAD_ARRAYS = {
    "expected images .* of bytes or floats, got int64": np.zeros((1, 1, 2, 2), np.int64),
    r"expected images .*, got float64 \(2, 2\)": np.zeros((2, 2)),
    "expected pixels from 0 to 1, got 0 to 255": np.array([0.0, 255.0]).reshape(1, 1, 1, 2),
    "expected pixels from 0 to 1, got nan": np.full((1, 1, 1, 1), np.nan),
    "could not read it": np.array([{}], dtype=object),
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_arrays_that_are_no_images(message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", BAD_ARRAYS[message], allow_pickle=True)
    with pytest.raises(ValueError, match=f"x.npy: .*{message}"):
        open_images(str(tmp_path / "x.npy"))


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected PNG or JPEG files, got none"):
        open_images(str(tmp_path))
    write_pictures(tmp_path, (5, 4), (4, 4))
    with pytest.raises(ValueError, match=r"expected images of one size, got \(3, 4, 5\) and \(3, 4, 4\)"):
        open_images(str(tmp_path))
    (tmp_path / "picture0.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(ValueError, match=r"picture0.png: expected a PNG or JPEG image, could not read it"):
        open_images(str(tmp_path))


def test_names_of_nothing() -> None:
    with pytest.raises(ValueError, match="nowhere: expected images: a public source that has some"):
        open_images("nowhere")
    with pytest.raises(ValueError, match="expected a source with images, got kohn_pvc11, which has none"):
        open_images("kohn_pvc11")
