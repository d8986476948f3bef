"""Modifications against the package `imagecorruptions`, which works on one 8-bit image at a time."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from neurovar import modifications
from neurovar.modifications import MODIFICATIONS, SEVERITIES, modify

SHAPES = [(1, 28, 28), (3, 64, 64)]
ANGLES = [-45.0, -44.3, -29.0, -13.7, -0.4, 0.0, 7.1, 22.5, 38.9, 45.0]
NOISE_SD = {1: 0.08, 2: 0.12, 3: 0.18, 4: 0.26, 5: 0.38}


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip(
        "imagecorruptions.corruptions", reason="the reference needs the package imagecorruptions-imaug"
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def eight_bit_images(*shape: int, seed: int = 0) -> np.ndarray:
    """(batch, row, column, channel), uint8: noise with black, white and grey patches."""
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    images[:, :5, :5], images[:, 5:9, :5], images[:, :5, 5:9] = 0, 255, 128
    return images


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def in_colour(image: np.ndarray) -> np.ndarray:
    """Three channels: the reference's motion blur fails on a grey image."""
    return np.broadcast_to(image, (*image.shape[:2], 3))


def assert_within_one_level(ours: Tensor, theirs: list[np.ndarray]) -> None:
    ours_8_bit = (ours * 255).round().permute(0, 2, 3, 1).numpy().astype(int)
    np.testing.assert_allclose(ours_8_bit, np.stack(theirs).reshape(ours_8_bit.shape).round().astype(int), atol=1)


@pytest.mark.parametrize("strength", SEVERITIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_matches_the_reference(reference, strength, channels):
    images = eight_bit_images(4, 40, 33, channels)
    theirs = [reference.brightness(image.squeeze(), strength) for image in images]
    assert_within_one_level(modifications.brightness(as_tensor(images), strength), theirs)


@pytest.mark.parametrize("strength", SEVERITIES)
@pytest.mark.parametrize("shape", [(32, 32, 1), (33, 47, 3), (112, 112, 3)])
def test_motion_blur_matches_the_reference(reference, strength, shape, monkeypatch):
    images = eight_bit_images(len(ANGLES), *shape)
    remaining = iter(ANGLES)
    monkeypatch.setattr(np.random, "uniform", lambda low, high: next(remaining))
    theirs = [reference.motion_blur(in_colour(image), strength)[..., : shape[2]] for image in images]
    assert_within_one_level(modifications._motion_blur(as_tensor(images), torch.tensor(ANGLES), strength), theirs)


@pytest.mark.parametrize("strength", SEVERITIES)
def test_motion_blur_pads_small_images_with_zeros(reference, strength, monkeypatch):
    images = eight_bit_images(len(ANGLES), 28, 28, 1)
    remaining = iter(ANGLES)
    monkeypatch.setattr(np.random, "uniform", lambda low, high: next(remaining))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    theirs = [reference.motion_blur(in_colour(image), strength)[2:30, 2:30, :1] for image in padded]
    assert_within_one_level(modifications._motion_blur(as_tensor(images), torch.tensor(ANGLES), strength), theirs)


@pytest.mark.parametrize("strength", SEVERITIES)
def test_gaussian_noise_has_the_distribution_of_the_reference(reference, strength):
    image = eight_bit_images(1, 64, 64, 3)
    np.random.seed(0)  # noqa: NPY002 - the reference draws from NumPy's global state
    theirs = reference.gaussian_noise(image[0], strength) / 255 - image[0] / 255
    images = as_tensor(image)
    ours = modifications.gaussian_noise(images, strength, generator=generator()) - images
    assert ks_2samp(ours.flatten().numpy(), theirs.flatten()).pvalue > 0.01


@pytest.mark.parametrize("strength", [1, 2])  # beyond, clipping at 0 and 1 narrows the noise on mid-grey
def test_gaussian_noise_has_its_standard_deviation(strength):
    grey = torch.full((20, 3, 50, 50), 0.5)
    noise = modify(grey, "gaussian_noise", strength=strength, generator=generator()) - grey
    assert noise.std().item() == pytest.approx(NOISE_SD[strength], rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("strength", SEVERITIES)
def test_gaussian_noise_clips_as_often_as_its_standard_deviation_says(strength):
    grey = torch.full((20, 3, 50, 50), 0.5)
    noisy = modify(grey, "gaussian_noise", strength=strength, generator=generator())
    expected = 2 * torch.special.ndtr(torch.tensor(-0.5 / NOISE_SD[strength])).item()
    assert ((noisy == 0) | (noisy == 1)).double().mean().item() == pytest.approx(expected, abs=0.005)


def test_gaussian_noise_is_independent_between_images_and_channels():
    grey = torch.full((2, 3, 60, 60), 0.5)
    noise = (modify(grey, "gaussian_noise", strength=1, generator=generator()) - grey).flatten(0, 1).flatten(1)
    assert (torch.corrcoef(noise) - torch.eye(6)).abs().max() < 0.07


def test_motion_blur_draws_its_angles_over_the_whole_range(monkeypatch):
    drawn = []
    monkeypatch.setattr(modifications, "_motion_blur", lambda images, angles, strength: drawn.append(angles))
    modifications.motion_blur(torch.zeros(2000, 1, 1, 1), 1, generator=generator())
    expected = np.random.default_rng(0).uniform(-45, 45, 2000)
    assert drawn[0].shape == (2000,)
    assert ks_2samp(drawn[0].numpy(), expected).pvalue > 0.01


def test_motion_blur_leaves_a_large_flat_image_as_it_is():
    flat = torch.full((3, 3, 64, 64), 0.3)
    torch.testing.assert_close(modify(flat, "motion_blur", strength=5, generator=generator()), flat)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_a_batch_gives_what_its_parts_give(name, shape):
    images = torch.rand(7, *shape, generator=generator(1))
    whole = modify(images, name, strength=3, generator=generator())
    one_generator = generator()
    parts = [modify(part, name, strength=3, generator=one_generator) for part in images.split([3, 4])]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("name", MODIFICATIONS)
def test_the_seed_decides(name):
    images = torch.rand(3, 1, 28, 28, generator=generator(1))
    first, again, other = (modify(images, name, strength=2, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "brightness")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 224, 224), (1, 8, 40)])
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_output_is_new_of_the_same_kind_and_in_range(name, shape, dtype):
    images = torch.rand(2, *shape, generator=generator(1)).to(dtype)
    before = images.clone()
    modified = modify(images, name, strength=5, generator=generator())
    assert torch.equal(images, before)
    assert (modified.shape, modified.dtype) == (images.shape, images.dtype)
    assert ((modified >= 0) & (modified <= 1)).all()
    assert not torch.equal(modified, images)


@pytest.mark.parametrize("value", [0.0, 1e-40, 1.0])
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_extreme_pixels_stay_finite_and_in_range(name, value):
    images = torch.full((2, 3, 32, 32), value)
    modified = modify(images, name, strength=5, generator=generator())
    assert ((modified >= 0) & (modified <= 1)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_the_device_does_not_matter(name, shape):
    images = torch.rand(4, *shape, generator=generator(1))
    on_gpu = modify(images.cuda(), name, strength=4, generator=generator())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), modify(images, name, strength=4, generator=generator()))


@pytest.mark.parametrize("name", ["motionblur", "snow", ""])
def test_an_unknown_name_lists_the_near_ones(name):
    near = "motion_blur" if name == "motionblur" else "gaussian_noise, brightness, motion_blur"
    expected = f"expected the name of a modification, got '{name}'; near it: .*{near}"
    with pytest.raises(ValueError, match=expected):
        modify(torch.zeros(1, 1, 28, 28), name, strength=1, generator=generator())


@pytest.mark.parametrize("strength", [0, 6, -1, 2.5, 3.0, "3", None])
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_a_strength_that_is_no_severity(name, strength):
    with pytest.raises(ValueError, match=f"an integer severity from 1 to 5, got {strength!r}"):
        modify(torch.zeros(1, 1, 28, 28), name, strength=strength, generator=generator())


BAD_IMAGES = {
    "expected images as a floating-point tensor, got torch.uint8": torch.zeros(1, 1, 28, 28, dtype=torch.uint8),
    "expected images as a floating-point tensor, got float64": np.zeros((1, 1, 28, 28)),
    "expected images as a floating-point tensor, got list": [[0.0]],
    r"1 or 3 channels, row, column\), got shape \(1, 28, 28\)": torch.zeros(1, 28, 28),
    r"1 or 3 channels, row, column\), got shape \(1, 2, 28, 28\)": torch.zeros(1, 2, 28, 28),
    r"1 or 3 channels, row, column\), got shape \(0, 1, 28, 28\)": torch.zeros(0, 1, 28, 28),
    r"expected pixels in \[0, 1\], got values from 0 to 255": torch.tensor([0.0, 255.0]).view(1, 1, 1, 2),
    r"expected pixels in \[0, 1\], got values from -1 to 1": torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2),
    r"expected pixels in \[0, 1\], got values from nan": torch.full((1, 1, 28, 28), float("nan")),
}


@pytest.mark.parametrize("message", BAD_IMAGES)
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_images_of_another_kind(name, message):
    with pytest.raises(ValueError, match=message):
        modify(BAD_IMAGES[message], name, strength=1, generator=generator())
