"""What every modification keeps to, what single ones do to pictures with a known answer, and bad input."""

from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modified import FIXED, RANDOM, SCALED, modify
from scipy.stats import kstest, poisson
from seeds import generator
from torch import Tensor

from neurovar.networks import MODIFICATIONS, PREBLE2026, SEVERITIES, Modification, modification
from neurovar.networks.modifications import _base, _blur, _spatter, _weather

SHAPES = [(1, 28, 28), (3, 40, 33)]
FLAT_STAYS = ("gaussian_blur", "glass_blur", "zoom_blur", "contrast", "pixelate", "elastic_transform")


@pytest.fixture(autouse=True)
def frost_has_its_pictures(request):
    if "frost" in request.node.name and find_spec("imagecorruptions") is None:
        pytest.skip("frost needs the pictures of the package imagecorruptions-imaug")


def strong(name: str) -> float:
    return 2.0 if name in SCALED else 5


def pictures(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


def test_there_are_the_ten_of_the_protocol_and_all_of_imagenet_c():
    corruptions = set(MODIFICATIONS) - set(SCALED)
    assert len(corruptions) == 19
    strengths: dict[str, list[float]] = {}
    for value in PREBLE2026:
        strengths.setdefault(value.name, []).append(value.strength)
    assert set(strengths) == {
        *SCALED, "brightness", "contrast", "gaussian_noise", "impulse_noise", "motion_blur", "snow",
    }  # fmt: skip
    assert strengths["snow"] == [1, 2, 3, 4, 5]
    assert strengths["rotate"] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.5, 1.6, 1.8, 2.0]
    assert len(PREBLE2026) == 74  # of the 118 cells of the main table; 44 are attacks
    assert {value.protocol for value in PREBLE2026} == {"preble2026"}


@pytest.mark.parametrize("name", MODIFICATIONS)
def test_a_modification_is_a_value(name):
    value = modification(name, strong(name))
    assert value == modification(name, strong(name)) != modification(name, 1)
    assert hash(value) == hash(modification(name, np.float64(2) if name in SCALED else np.int64(5)))
    assert Modification.from_json(value.to_json()) == value
    assert (value.name, value.label) == (name, f"{name} {value.strength:g}")
    assert value.described()["strength"] == strong(name) and value.described()["modification"] == name
    published = MODIFICATIONS[name].preble2026(3) if name not in SCALED else None
    if published:
        assert (published.label, published.protocol) == (f"{name} 3 preble2026", "preble2026")
        assert Modification.from_json(published.to_json()) == published != modification(name, 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_every_modification_keeps_to_the_contract(name, shape):
    images, strength = pictures(7, *shape), strong(name)
    before = images.clone()
    modified = modify(images, name, strength=strength, generator=generator())
    assert torch.equal(images, before)
    assert (modified.shape, modified.dtype) == (images.shape, images.dtype)
    assert ((modified >= 0) & (modified <= 1)).all()
    assert torch.equal(modified, images) == (name == "saturate" and shape[0] == 1)

    assert torch.equal(modified, modify(images, name, strength=strength, generator=generator()))
    other = modify(images, name, strength=strength, generator=generator(1))
    assert torch.equal(modified, other) == (name in FIXED)

    one = generator()
    parts = [modify(part, name, strength=strength, generator=one) for part in images.split([1, 2, 4])]
    assert torch.equal(modified, torch.cat(parts))

    precise = modify(images.double(), name, strength=strength, generator=generator())
    assert precise.dtype == torch.float64
    assert (precise - modified).abs().mean() < 1e-5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(set(MODIFICATIONS) - {"frost"})), st.data())
def test_a_batch_is_its_images_one_after_another(name, data):
    """Whatever the kind of images, the strength and the cuts of the batch: to rounding, which differs at odd sizes."""
    strength = data.draw(st.floats(0.1, 2.0) if name in SCALED else st.sampled_from(SEVERITIES))
    n, height, width = (data.draw(st.integers(low, 40)) for low in (1, 2, 2))
    images = pictures(min(n, 6), data.draw(st.sampled_from([1, 3])), height, width, seed=n)
    value, whole, parts = modification(name, strength), generator(n), generator(n)
    expected = value(images, generator=whole)
    sizes = data.draw(st.integers(1, 6))
    cut = torch.cat([value(part, generator=parts) for part in images.split(sizes)])
    assert ((expected - cut).abs() > 1e-5).double().mean() < 0.02  # rounding may move a pixel by one of 8 bits
    assert torch.equal(whole.get_state(), parts.get_state())
    assert Modification.from_json(value.to_json()) == value


ORDERED = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur", "motion_blur",
    "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "fog", *SCALED,
)  # fmt: skip


@pytest.mark.parametrize("name", ORDERED)
def test_a_stronger_one_changes_images_more(name):
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = 0.5 + 0.2 * torch.sin(rows / 3) * torch.cos(columns / 5) + 0.1 * pictures(20, 3, 64, 64)
    changes = [
        (modification(name, strength)(waves, generator=generator()) - waves).abs().mean()
        for strength in ((0.2, 0.8, 2.0) if name in SCALED else SEVERITIES)
    ]
    assert all(weaker < stronger for weaker, stronger in pairwise(changes)), changes


@pytest.mark.parametrize("name", RANDOM)
def test_each_image_of_a_batch_has_its_own_draw(name):
    same = pictures(1, 1, 28, 28).expand(5, -1, -1, -1)
    modified = modify(same, name, strength=strong(name), generator=generator())
    assert all(not torch.equal(a, b) for i, a in enumerate(modified) for b in modified[:i])


@pytest.mark.parametrize("name", MODIFICATIONS)
def test_parts_of_a_batch_do_not_show(name, monkeypatch):
    images = pictures(6, 1, 28, 28)
    whole = modify(images, name, strength=strong(name), generator=generator())
    monkeypatch.setitem(_base._NUMBERS_AT_ONCE, "cpu", 2 * 28 * 28)
    assert torch.equal(whole, modify(images, name, strength=strong(name), generator=generator()))


@pytest.mark.parametrize("name", MODIFICATIONS)
def test_large_colour_images_and_channels_last(name):
    image = pictures(1, 3, 224, 224).to(memory_format=torch.channels_last)
    modified = modify(image, name, strength=strong(name) / 5 if name in SCALED else 1, generator=generator())
    assert modified.shape == image.shape
    assert 0 < (modified - image).abs().mean() < 0.5


@pytest.mark.parametrize("shape", [(1, 8, 40), (3, 2, 2)])
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_small_images(name, shape):
    modified = modify(pictures(2, *shape), name, strength=strong(name), generator=generator())
    assert ((modified >= 0) & (modified <= 1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "rotate"])
def test_half_precision_comes_back(name, dtype):
    images = pictures(2, 1, 28, 28).to(dtype)
    modified = modify(images, name, strength=1, generator=generator())
    assert modified.dtype == dtype
    expected = modify(images.float(), name, strength=1, generator=generator())
    torch.testing.assert_close(modified.float(), expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1e-40, 1.0])
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_extreme_pixels_stay_finite_and_in_range(name, value):
    images = torch.full((2, 3, 32, 32), value)
    modified = modify(images, name, strength=strong(name), generator=generator())
    assert ((modified >= 0) & (modified <= 1)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODIFICATIONS)
def test_the_device_does_not_matter(name, shape):
    images = pictures(4, *shape)
    here = modify(images, name, strength=strong(name), generator=generator())
    there = modify(images.cuda(), name, strength=strong(name), generator=generator())
    assert there.is_cuda
    assert (there.cpu() - here).abs().mean() < 1e-4  # thresholds may fall the other way in single pixels
    drawn_there = [torch.Generator("cuda").manual_seed(0) for _ in range(2)]
    whole = modify(images.cuda(), name, strength=strong(name), generator=drawn_there[0])
    parts = [modify(i, name, strength=strong(name), generator=drawn_there[1]) for i in images.cuda().split([1, 3])]
    torch.testing.assert_close(whole, torch.cat(parts))


@pytest.mark.parametrize("strength", SEVERITIES)
@pytest.mark.parametrize("name", FLAT_STAYS)
def test_blurs_and_the_like_leave_a_flat_image_as_it_is(name, strength):
    flat = torch.full((2, 3, 48, 48), 102 / 255)
    modified = modify(flat, name, strength=strength, generator=generator())
    torch.testing.assert_close(modified, flat, atol=1.01 / 255 if name == "glass_blur" else 1e-6, rtol=0)


@pytest.mark.parametrize("strength, expected", list(enumerate((0.08, 0.12, 0.18, 0.26, 0.38), 1)))
def test_gaussian_noise_has_its_standard_deviation(strength, expected):
    grey = torch.full((20, 3, 50, 50), 0.5)
    noise = modify(grey, "gaussian_noise", strength=strength, generator=generator()) - grey
    clipped = (expected * torch.randn(10**6, generator=generator(1))).clamp(-0.5, 0.5)
    assert noise.std().item() == pytest.approx(clipped.std().item(), rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.003)


def test_noise_is_independent_between_images_and_channels():
    grey = torch.full((2, 3, 60, 60), 0.5)
    for name in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"):
        noise = (modify(grey, name, strength=1, generator=generator()) - grey).flatten(0, 1).flatten(1)
        assert (torch.corrcoef(noise) - torch.eye(6)).abs().max() < 0.07


@pytest.mark.parametrize("strength, photons", list(enumerate((60, 25, 12, 5, 3), 1)))
def test_shot_noise_has_the_moments_of_poisson_counts(strength, photons):
    grey = torch.full((20, 3, 50, 50), 0.2)
    counts = modify(grey, "shot_noise", strength=strength, generator=generator()) * photons
    expected = np.minimum(poisson(0.2 * photons).rvs(10**6, random_state=0), photons)
    assert counts.mean().item() == pytest.approx(expected.mean(), rel=0.02)
    assert counts.var().item() == pytest.approx(expected.var(), rel=0.03)
    torch.testing.assert_close(counts, counts.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("strength, share", list(enumerate((0.03, 0.06, 0.09, 0.17, 0.27), 1)))
def test_impulses_are_white_and_black_as_often(strength, share):
    grey = torch.full((20, 3, 50, 50), 0.2)
    noisy = modify(grey, "impulse_noise", strength=strength, generator=generator())
    for value in (0.0, 1.0):
        assert (noisy == value).double().mean().item() == pytest.approx(share / 2, rel=0.05)
    assert (noisy == 0.2).double().mean().item() == pytest.approx(1 - share, abs=0.005)


@pytest.mark.parametrize("strength, radius", list(enumerate((3, 4, 6, 8, 10), 1)))
def test_defocus_spreads_a_point_over_a_disk(strength, radius):
    dot = torch.zeros(1, 1, 65, 65)
    dot[..., 32, 32] = 1
    blurred = modify(dot, "defocus_blur", strength=strength, generator=generator())[0, 0]
    distance = torch.hypot(*torch.meshgrid(*2 * [torch.arange(65.0) - 32], indexing="ij"))
    assert (blurred[distance > radius + 3] < 1e-6).all()
    inside = blurred[distance < radius - 2]
    torch.testing.assert_close(inside, inside.mean().expand_as(inside), atol=1e-6, rtol=1e-3)
    assert blurred.sum().item() == pytest.approx(1, abs=0.02)  # ImageNet-C's soft rim loses a little at radius 8, 10


def test_motion_blur_draws_a_direction_over_its_whole_range(monkeypatch):
    drawn = []
    monkeypatch.setattr(_blur, "blur_along", lambda images, angles, *_: drawn.append(angles) or images)
    modify(torch.zeros(2000, 1, 1, 1), "motion_blur", strength=1, generator=generator())
    assert kstest(torch.cat(drawn).numpy(), "uniform", (-45, 90)).pvalue > 0.01


def test_snow_falls_in_directions_over_its_whole_range(monkeypatch):
    drawn = []
    monkeypatch.setattr(_weather, "blur_along", lambda images, angles, *_: drawn.append(angles) or images)
    modify(torch.zeros(2000, 1, 1, 1), "snow", strength=1, generator=generator())
    assert kstest(torch.cat(drawn).numpy(), "uniform", (-135, 90)).pvalue > 0.01


@pytest.mark.parametrize("name", ["brightness", "motion_blur", "rotate", "elastic"])
def test_gradients_pass(name):
    images = (0.4 * pictures(2, 1, 28, 28) + 0.1).requires_grad_()
    modify(images, name, strength=1, generator=generator()).sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_obstruction_falls_everywhere_alike():
    white = torch.ones(4000, 1, 28, 20)
    covered = (modify(white, "obstruction", strength=1.0, generator=generator()) == 0)[:, 0]
    assert (covered.sum((1, 2)) == 8 * 8).all()  # int(0.4 · 20)
    for dim, n in ((2, 28 - 8 + 1), (1, 20 - 8 + 1)):
        first = covered.any(dim).int().argmax(1)
        counts = torch.bincount(first, minlength=n)
        assert len(counts) == n
        assert ((counts - 4000 / n) ** 2 / (4000 / n)).sum() < 2.5 * n  # χ² of n − 1 degrees of freedom


def test_the_smallest_obstruction_is_a_pixel():
    covered = modify(torch.ones(1, 1, 28, 28), "obstruction", strength=0.05, generator=generator())
    assert (covered == 0).sum() == 1


def test_a_flake_falls_on_both_halves_of_an_image():
    snowy = modify(torch.zeros(1, 1, 64, 64), "snow", strength=1, generator=generator())
    torch.testing.assert_close(snowy, snowy.rot90(2, (2, 3)))


def test_saturation_of_grey_pixels_in_colour_images_turns_red():
    grey = torch.full((1, 3, 4, 4), 0.5)
    reddish = modify(grey, "saturate", strength=5, generator=generator())
    torch.testing.assert_close(reddish[0, :, 0, 0], torch.tensor([0.5, 0.4, 0.4]))


def test_water_leaves_an_image_dry_where_none_falls(monkeypatch):
    monkeypatch.setattr(_spatter, "normals", lambda images, n, generator: torch.full((len(images), n), -1.0))
    images = pictures(2, 3, 40, 40)
    assert torch.equal(modify(images, "spatter", strength=1, generator=generator()), images)


def test_grey_spatter_and_frost_are_the_luma_of_coloured_ones():
    grey = 0.2 * pictures(3, 1, 40, 40)  # nothing is clipped
    for name in ("spatter", "frost"):
        one, three = (modify(i, name, strength=1, generator=generator()) for i in (grey, grey.expand(-1, 3, -1, -1)))
        torch.testing.assert_close(one, _base.luma(three) / sum(_base.LUMA), atol=2e-4, rtol=0)


def test_frost_without_its_pictures_says_what_to_install(monkeypatch):
    _weather._frost_picture.cache_clear()
    monkeypatch.setattr(_weather, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="not installed: pip install imagecorruptions-imaug"):
        modify(torch.zeros(1, 1, 28, 28), "frost", strength=1, generator=generator())


def test_the_papers_noise_on_three_channels_leaves_two_thirds():
    grey = torch.full((20, 1, 28, 28), 128 / 255)
    noise, published = (
        modify(grey, "gaussian_noise", strength=1, generator=generator(), as_published=p) - grey for p in (False, True)
    )
    assert (published.std() / noise.std()).item() == pytest.approx(np.linalg.norm(_base.LUMA), rel=0.02)  # 0.67
    assert published.mean().item() == pytest.approx(-0.5 / 255, abs=0.001)  # rounding down


def test_the_papers_impulses_are_of_single_channels():
    grey = torch.full((20, 1, 28, 28), 128 / 255)
    noisy = modify(grey, "impulse_noise", strength=5, generator=generator(), as_published=True)
    changed = ((noisy - grey).abs() > 0.01).double().mean().item()
    assert changed == pytest.approx(1 - (1 - 0.27) ** 3, abs=0.02)


@pytest.mark.parametrize("name", ["brightness", "contrast", "motion_blur", "snow"])
def test_the_papers_form_differs_by_8_bits_only_where_channels_are_equal(name):
    images = (pictures(3, 1, 28, 28) * 255).round() / 255
    plain, published = (modify(images, name, strength=3, generator=generator(), as_published=p) for p in (False, True))
    below = plain - published
    assert below.min() > -1e-5 and below.max() < 1 / 255 + 1e-5
    torch.testing.assert_close(published * 255, (published * 255).round(), atol=1e-4, rtol=0)


def test_the_papers_form_starts_from_8_bits():
    levels = torch.tensor([100.4, 100.6, 0.2, 254.7]).view(1, 1, 1, 4) / 255
    bright = modify(levels, "brightness", strength=2, generator=generator(), as_published=True)
    torch.testing.assert_close(bright * 255, torch.tensor([151.0, 152.0, 51.0, 255.0]).view(1, 1, 1, 4))


def test_the_papers_form_is_the_same_whatever_the_batch_size(monkeypatch):
    images = pictures(5, 1, 28, 28)
    for name in ("gaussian_noise", "shot_noise", "snow"):
        whole = modify(images, name, strength=3, generator=generator(), as_published=True)
        with monkeypatch.context() as patch:
            patch.setattr(_base, "_IMAGES_AT_ONCE", 2)
            assert torch.equal(whole, modify(images, name, strength=3, generator=generator(), as_published=True))


def test_the_papers_form_is_for_grey_images():
    with pytest.raises(ValueError, match=r"expected grey images \(1 channel\).*got 3 channels; leave out grey_8_bit"):
        modify(torch.zeros(1, 3, 28, 28), "snow", strength=1, generator=generator(), as_published=True)


@pytest.mark.parametrize("name", ["motionblur", "xyz", ""])
def test_an_unknown_name_lists_the_near_ones(name):
    near = "motion_blur" if name == "motionblur" else "gaussian_noise, shot_noise, .*rotate"
    with pytest.raises(ValueError, match=f"expected the name of a modification, got '{name}'; near it: .*{near}"):
        modification(name, 1)


@pytest.mark.parametrize("strength", [0, 6, -1, 2.5, 3.0, "3", None, True])
@pytest.mark.parametrize("name", [name for name in MODIFICATIONS if name not in SCALED])
def test_a_strength_that_is_no_severity(name, strength):
    with pytest.raises(ValueError, match=f"an integer severity from 1 to 5, got {strength!r}"):
        modification(name, strength)


@pytest.mark.parametrize("strength", [0, -1, 2.01, float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize("name", SCALED)
def test_a_strength_that_is_no_scale(name, strength):
    with pytest.raises(ValueError, match=f"a number with 0 < s <= 2, got {strength!r}"):
        modification(name, strength)


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_needs_a_generator(name):
    with pytest.raises(ValueError, match=r"expected a torch.Generator to draw random numbers from, got None"):
        modify(torch.zeros(1, 1, 28, 28), name, strength=1, generator=None)


def test_perspective_needs_corners():
    with pytest.raises(ValueError, match="images of at least 2 × 2 pixels, got 1 × 28"):
        modify(torch.zeros(1, 1, 1, 28), "perspective", strength=1, generator=generator())


BAD_IMAGES = {
    "expected images as a floating-point tensor, got torch.uint8": torch.zeros(1, 1, 28, 28, dtype=torch.uint8),
    "expected images as a floating-point tensor, got float64": np.zeros((1, 1, 28, 28)),
    "expected images as a floating-point tensor, got list": [[0.0]],
    r"1 or 3 channels, row, column\), got shape \(1, 28, 28\)": torch.zeros(1, 28, 28),
    r"1 or 3 channels, row, column\), got shape \(1, 2, 28, 28\)": torch.zeros(1, 2, 28, 28),
    r"1 or 3 channels, row, column\), got shape \(0, 1, 28, 28\)": torch.zeros(0, 1, 28, 28),
    r"expected pixels in \[0, 1\], got 0 to 255": torch.tensor([0.0, 255.0]).view(1, 1, 1, 2),
    r"expected pixels in \[0, 1\], got -1 to 1": torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2),
    r"expected pixels in \[0, 1\], got nan": torch.full((1, 1, 28, 28), float("nan")),
}


@pytest.mark.parametrize("message", BAD_IMAGES)
@pytest.mark.parametrize("as_published", [False, True])
def test_images_of_another_kind(as_published, message):
    for name in MODIFICATIONS:
        with pytest.raises(ValueError, match=message):
            modify(BAD_IMAGES[message], name, strength=1, generator=generator(), as_published=as_published)
