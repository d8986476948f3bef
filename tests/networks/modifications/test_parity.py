"""Corruptions against `imagecorruptions`, transformations against torchvision: public code for one image at a time.

Where random numbers can be handed over, the reference gets those that were drawn here, and 8-bit results differ by at
most one level. Elsewhere, and once more for all, statistics of many modified copies of one image are compared by
Kolmogorov–Smirnov tests with fixed seeds; the level is 0.05 for all of them together.
"""

from collections.abc import Iterator
from math import ceil

import numpy as np
import pytest
import torch
from modified import RANDOM, SCALED, modify
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import ks_2samp
from seeds import generator
from torch import Tensor

from neurovar.networks import MODIFICATIONS, SEVERITIES
from neurovar.networks.modifications import _blur, _draws, _geometry, _weather

NOT_HANDED = ("shot_noise", "impulse_noise")
HANDED = [name for name in MODIFICATIONS if name not in (*SCALED, *NOT_HANDED)]
SHAPES = [(32, 32), (37, 50), (112, 112)]
LEVEL = 0.05 / (3 * len(RANDOM))
AXES = (1, 2, 3)
N_COPIES = 120


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip(
        "imagecorruptions.corruptions", reason="the reference needs the package imagecorruptions-imaug"
    )


@pytest.fixture(scope="module")
def torchvision():
    return pytest.importorskip("torchvision.transforms.v2", reason="the reference needs torchvision")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The random numbers (batch, n) that modifications draw."""
    seen: list[np.ndarray] = []
    draw = _draws._drawn

    def recorded(*args) -> Tensor:
        seen.append(draw(*args).double().numpy())
        return torch.from_numpy(seen[-1]).to(args[1])

    monkeypatch.setattr(_draws, "_drawn", recorded)
    return seen


def pictures(n: int, *shape: int) -> np.ndarray:
    """(n, row, column, 3), uint8: smooth colours with black, white and grey patches; every other one is dark."""
    noise = gaussian_filter(np.random.default_rng(0).random((n, *shape, 3)), (0, 3, 3, 0))
    images = np.round(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    images[:, :5, :5], images[:, 5:9, :5], images[:, :5, 5:9] = 0, 255, 128
    images[1::2] //= 2
    return images


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def in_8_bits(images: Tensor) -> np.ndarray:
    return (images * 255).round().permute(0, 2, 3, 1).numpy().astype(int)


def handed(name: str, strength: int, row: np.ndarray, height: int, width: int) -> Iterator[np.ndarray]:
    """Numbers drawn for one image in the order in which the reference asks for them."""
    if name in ("gaussian_noise", "speckle_noise"):
        yield row[: 3 * height * width].reshape(3, height, width).transpose(1, 2, 0)
    elif name == "spatter":
        yield row[: height * width].reshape(height, width)
    elif name == "elastic_transform":
        yield from row.reshape(2, height, width)
    elif name == "snow":
        yield from _for_snow(row, _weather._SNOW[strength - 1][2], height, width)
    elif name == "fog":
        side, begin = 1 << (max(height, width) - 1).bit_length(), 0
        for n in (2**level for level in range(side.bit_length() - 1) for _ in range(3)):
            yield row[begin : begin + n * n].reshape(n, n)
            begin += n * n
    elif name == "glass_blur":
        _, reach, passes = _blur._GLASS[strength - 1]
        order = np.argsort(-_blur._waves(height, width, reach)[0].numpy())  # from the last pixel to the first
        for down, right in _choices(row.reshape(passes, -1)[:, order].ravel(), 2 * reach):
            yield np.array([right - reach, down - reach])
    else:
        yield from row


def _for_snow(row: np.ndarray, factor: float, height: int, width: int) -> Iterator[np.ndarray]:
    rows, columns = ceil(height / factor), ceil(width / factor)
    flakes = np.full((height, width), 100.0)  # what is outside the middle must not matter
    top, left = (height - rows) // 2, (width - columns) // 2
    flakes[top : top + rows, left : left + columns] = row[1 : 1 + rows * columns].reshape(rows, columns)
    yield flakes
    yield torch.special.ndtr(torch.tensor(row[0], dtype=torch.float32)).numpy()


def _choices(uniform: np.ndarray, n: int) -> Iterator[tuple[int, int]]:
    yield from (divmod(int(choice), n) for choice in np.floor(uniform * n * n))


def hand_over(monkeypatch: pytest.MonkeyPatch, reference, numbers: Iterator[np.ndarray]) -> None:
    """Let the reference take `numbers` for its own draws."""

    def integers(low, high=None, size=None):
        if size is not None:
            return next(numbers)
        return low + int(next(numbers) * (high - low)) if high is not None else int(next(numbers) * low)

    monkeypatch.setattr(np.random, "normal", lambda loc=0, scale=1, size=None: loc + scale * next(numbers))
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size=None: low + (high - low) * next(numbers))
    monkeypatch.setattr(np.random, "randint", integers)
    uncompiled(monkeypatch, reference)


def uncompiled(monkeypatch: pytest.MonkeyPatch, reference) -> None:
    """The glass blur's loop in plain Python, on NumPy's global state as it is: compiling it takes seconds."""
    loop = reference._shuffle_pixels_njit_glass_blur.py_func
    monkeypatch.setattr(reference, "_shuffle_pixels_njit_glass_blur", loop)
    monkeypatch.setattr(np.random, "seed", lambda seed: None)


def corrupted(reference, name: str, strength: int, image: np.ndarray) -> np.ndarray:
    return np.asarray(getattr(reference, name)(Image.fromarray(image), strength)).astype(float)


@pytest.mark.parametrize("strength", SEVERITIES)
@pytest.mark.parametrize("name", HANDED)
def test_a_corruption_is_the_references_with_its_numbers(reference, drawn, monkeypatch, name, strength):
    for shape in SHAPES if name != "glass_blur" else SHAPES[:2]:
        images = pictures(2, *shape)
        drawn.clear()
        ours = in_8_bits(modify(as_tensor(images), name, strength=strength, generator=generator(3)))
        for i, image in enumerate(images):
            with monkeypatch.context() as patch:
                row = drawn[0][i] if drawn else np.empty(0)
                hand_over(patch, reference, handed(name, strength, row, *shape))
                theirs = corrupted(reference, name, strength, image)
            np.testing.assert_allclose(ours[i], theirs.round(), atol=1)
        assert bool(drawn) == (name in RANDOM)


@pytest.mark.parametrize("strength", SEVERITIES)
def test_motion_blur_is_the_references_at_every_angle(reference, strength):
    angles = [-45.0, -44.3, -29.0, -13.7, -0.4, 0.0, 7.1, 22.5, 38.9, 45.0]
    images = pictures(len(angles), 32, 32)
    ours = _blur.blur_along(as_tensor(images), torch.tensor(angles), *_blur._MOTION_RADIUS_AND_SD[strength - 1])
    for our, image, angle in zip(ours, images, angles):
        theirs = reference._motion_blur(image, *_blur._MOTION_RADIUS_AND_SD[strength - 1], angle) / 255
        np.testing.assert_allclose(our.permute(1, 2, 0), theirs, atol=1e-5)


@pytest.mark.parametrize("strength, disk", list(enumerate([(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)], 1)))
def test_defocus_has_the_references_kernel(reference, strength, disk):
    dot = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    dot[..., 30, 30] = 1
    kernel = reference.disk(*disk)
    margin = (61 - len(kernel)) // 2
    blurred = modify(dot, "defocus_blur", strength=strength, generator=generator())[0, 0]
    np.testing.assert_allclose(blurred, np.pad(kernel, margin), atol=1e-6)


@pytest.mark.parametrize("strength", SEVERITIES)
@pytest.mark.parametrize("name", ["gaussian_noise", "brightness", "contrast", "motion_blur", "snow", "frost", "fog"])
def test_the_papers_form_is_what_its_code_does(reference, drawn, monkeypatch, name, strength):
    """Pad to 32 × 32, three channels, corrupt, round down, crop, grey by torchvision's weights or the first channel."""
    grey = pictures(2, 28, 28)[..., 1]
    ours = modify(as_tensor(grey[..., None]), name, strength=strength, generator=generator(), as_published=True)
    for i, image in enumerate(grey):
        side = 28 if name in ("gaussian_noise", "brightness") else 32  # pixel by pixel, nothing is padded here
        frame = (side - 28) // 2
        with monkeypatch.context() as patch:
            row = drawn[0][i] if drawn else np.empty(0)
            hand_over(patch, reference, handed(name, strength, row, side, side))
            theirs = corrupted(reference, name, strength, np.stack(3 * [np.pad(image, frame)], -1))
        theirs = np.uint8(theirs)[frame : frame + 28, frame : frame + 28]
        weights = [0.2989, 0.587, 0.114] if name in ("gaussian_noise", "frost") else [1, 0, 0]
        np.testing.assert_allclose(ours[i, 0] * 255, theirs @ weights, atol=1.001)
        assert np.abs(ours[i, 0].numpy() * 255 - theirs @ weights).mean() < 0.2


@pytest.mark.parametrize("name", ["gaussian_blur", "motion_blur", "jpeg_compression", "glass_blur", "pixelate"])
def test_a_grey_image_is_any_channel_of_a_grey_one_in_colour(name):
    grey = as_tensor(pictures(3, 40, 40)[..., :1])
    one, three = (modify(i, name, strength=3, generator=generator()) for i in (grey, grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(one.expand_as(three), three, atol=1e-6, rtol=0)


@pytest.mark.parametrize("strength", [0.2, 1.0, 1.5, 2.0])
def test_elastic_is_torchvisions_with_its_numbers(torchvision, drawn, monkeypatch, strength):
    images = as_tensor(pictures(3, 28, 40))
    ours = modify(images, "elastic", strength=strength, generator=generator())
    for i, image in enumerate(images):
        numbers = iter(torch.tensor(drawn[0][i]).float().view(2, 1, 1, 28, 40))
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda *shape, numbers=numbers: next(numbers))
            theirs = torchvision.ElasticTransform(alpha=35.0 * strength)(image)
        torch.testing.assert_close(ours[i], theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("strength", [0.2, 1.0, 1.6, 2.0])
def test_perspective_is_torchvisions_with_its_numbers(torchvision, drawn, monkeypatch, strength):
    images = as_tensor(pictures(6, 28, 40))
    ours = modify(images, "perspective", strength=strength, generator=generator())
    inwards_first = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]).ravel()
    for i, image in enumerate(images):
        numbers = iter(zip(drawn[0][i], inwards_first))

        def integer(low, high, size, numbers=numbers):
            uniform, sign = next(numbers)
            steps = int(uniform * (high - low))
            return torch.tensor([low + steps if sign > 0 else high - 1 - steps])

        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", integer)
            theirs = torchvision.RandomPerspective(0.25 * strength, p=1.0)(image)
        torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("strength", [0.2, 1.0, 2.0])
def test_rotation_is_torchvisions_with_its_angle(torchvision, drawn, strength):
    images = as_tensor(pictures(6, 28, 40))
    ours = modify(images, "rotate", strength=strength, generator=generator())
    for i, image in enumerate(images):
        angle = float(2 * drawn[0][i, 0] - 1) * 60 * strength
        theirs = torchvision.functional.rotate(image, angle, torchvision.InterpolationMode.BILINEAR, fill=[0.0])
        torch.testing.assert_close(ours[i], theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", RANDOM)
def test_random_modifications_have_the_distribution_of_the_reference(reference, torchvision, monkeypatch, name):
    image = pictures(1, 32, 32)
    strength = 1.0 if name in SCALED else 3
    many = as_tensor(image).expand(N_COPIES, -1, -1, -1)
    ours = modify(many, name, strength=strength, generator=generator(1)).numpy()
    np.random.seed(0)  # noqa: NPY002 - the reference draws from NumPy's global state
    torch.manual_seed(0)
    uncompiled(monkeypatch, reference)
    theirs = np.stack([one_by_reference(reference, torchvision, name, image[0]) for _ in range(N_COPIES)])
    for statistic in (np.mean, np.std, rough):
        assert ks_2samp(statistic(ours, axis=AXES), statistic(theirs, axis=AXES), method="asymp").pvalue > LEVEL


def rough(images: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    return np.abs(np.diff(images, axis=-1)).mean(axis=axis)


def one_by_reference(reference, torchvision, name: str, image: np.ndarray) -> np.ndarray:
    """(3, row, column) in [0, 1]."""
    if name not in SCALED:
        return corrupted(reference, name, 3, image).transpose(2, 0, 1) / 255
    tensor = as_tensor(image[None])[0]
    if name == "obstruction":
        side = int(0.40 * 32)
        row, column = np.random.randint(0, 32 - side + 1, 2)  # noqa: NPY002
        tensor[:, row : row + side, column : column + side] = 0
        return tensor.numpy()
    transform = {
        "elastic": torchvision.ElasticTransform(alpha=35.0),
        "perspective": torchvision.RandomPerspective(0.25, p=1.0),
        "rotate": torchvision.RandomRotation(60, torchvision.InterpolationMode.BILINEAR),
    }[name]
    return transform(tensor).numpy()


def test_all_corruptions_of_the_reference_are_there(reference):
    import imagecorruptions

    assert {*imagecorruptions.get_corruption_names("all"), *SCALED} == set(MODIFICATIONS)


def test_projections_take_corners_to_corners():
    from_ = torch.tensor([[[3.0, 2.0], [20.0, 1.0], [25.0, 27.0], [0.0, 22.0]]], dtype=torch.float64)
    to = torch.tensor([[0.0, 0.0], [27.0, 0.0], [27.0, 27.0], [0.0, 27.0]])
    h = torch.cat((_geometry._projection(from_, to)[0], torch.ones(1))).view(3, 3)
    mapped = torch.cat((from_[0], torch.ones(4, 1)), 1) @ h.T
    torch.testing.assert_close(mapped[:, :2] / mapped[:, 2:], to.double())
