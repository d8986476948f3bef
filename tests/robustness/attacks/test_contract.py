"""What every attack keeps to, whatever it does: one table of attacks, of the library and of a user."""

from dataclasses import dataclass, replace

import pytest
import torch
from attacked import Stepwise, batch, generator, mean_loss, noise, tanh_network
from torch import Tensor, nn

from neurovar._values import Value
from neurovar.networks import NoisyNetwork
from neurovar.robustness import APGD, FGM, PGD, Attack, CannotRunError, GradientError, RandomSearch, Square


@dataclass(frozen=True)
class Darker(Attack):
    """An attack of a user's own."""

    share: float = 1.0
    takes_gradients = False

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        pixels = torch.rand(images.shape, generator=generator).to(images)
        size = self.epsilon * self.share / (1 if self.norm == "linf" else images[0].numel() ** 0.5)
        return (images - size * pixels).clamp(0, 1)


ATTACKS: dict[str, Attack] = {
    "fgm": FGM(0.1, n_draws=2),
    "pgd": PGD(0.1, n_steps=3, n_restarts=2, n_draws=2),
    "apgd": APGD(0.1, n_steps=4, n_restarts=2, n_draws=2),
    "apgd towards targets": APGD(0.1, n_steps=4, n_restarts=1, n_draws=2, loss="targeted_dlr", n_targets=2),
    "square": Square(0.1, n_queries=10, n_draws=2),
    "random search": RandomSearch(0.1, n_queries=5, n_draws=2),
    "uniform points": RandomSearch(0.1, n_queries=5, n_draws=2, points="uniform"),
    "fgm as published": FGM.preble2026(0.1),
    "pgd as published": PGD.preble2026(0.1, n_steps=3),
    "apgd as published": APGD.preble2026(0.1, n_steps=5, n_restarts=2),
    "square as published": Square.preble2026(0.1, n_steps=10),
    "of a user": Darker(0.1),
}
OF_ANY_NORM = [name for name in ATTACKS if "published" not in name]
WITH_GRADIENTS = [name for name, attack in ATTACKS.items() if attack.takes_gradients]
NOISES = {"without noise": {}, "noisy": noise()}


def network(noises: str = "noisy", seed: int = 0) -> tuple[NoisyNetwork, Tensor, Tensor]:
    model = tanh_network(seed=seed)
    images, labels = batch(model, n=8)
    images[0], images[1] = 0, 1
    return NoisyNetwork(model, NOISES[noises], images=images), images, labels


@pytest.mark.parametrize("noises", NOISES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_images_stay_in_the_ball_and_in_the_range_of_pixels(name: str, norm: str, noises: str) -> None:
    if norm == "l2" and name not in OF_ANY_NORM:
        pytest.skip("the paper's attacks are in L∞")
    attack, (victim, images, labels) = replace(ATTACKS[name], norm=norm), network(noises)
    before = images.clone()
    attacked = attack(victim, images, labels, generator=generator())
    assert attacked.shape == images.shape and attacked.dtype == images.dtype and not attacked.requires_grad
    assert 0 < attack.norm.sizes(attacked - images).max() <= 0.1 * (1 + 1e-9)
    assert attacked.min() >= 0 and attacked.max() <= 1
    assert torch.equal(images, before)
    assert all(parameter.grad is None for parameter in victim.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in victim.model.modules())


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_gives_the_same_images_whatever_the_global_state(name: str) -> None:
    attack, (victim, images, labels) = ATTACKS[name], network()
    state = torch.get_rng_state()
    first = attack(victim, images, labels, generator=generator(0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert torch.equal(first, attack(victim, images, labels, generator=generator(0)))
    assert not torch.equal(first, attack(victim, images, labels, generator=generator(1)))
    torch.set_rng_state(state)


@pytest.mark.parametrize("attack", [FGM(0.1), PGD(0.1, n_steps=5, n_restarts=1, random_start=False)], ids=str)
def test_what_is_not_random_attacks_each_image_for_itself(attack: Attack) -> None:
    victim, images, labels = network("without noise")
    together = attack(victim, images, labels, generator=generator())
    pairs = zip(images.split(1), labels.split(1))
    single = torch.cat([attack(victim, *pair, generator=generator()) for pair in pairs])
    torch.testing.assert_close(together, single, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_a_value(name: str) -> None:
    attack = ATTACKS[name]
    assert Value.from_json(attack.to_json()) == attack
    assert Attack.from_json(attack.to_json()).label == attack.label
    assert replace(attack, epsilon=0.2) != attack
    assert replace(attack, epsilon=0.2).label != attack.label
    assert hash(replace(attack)) == hash(attack)
    assert "<" not in str(attack)
    assert attack.origin.is_attack and attack.origin.of == attack.name


@pytest.mark.parametrize(
    ("weak", "strong"),
    [
        (FGM(0.1), PGD(0.1, n_steps=20, n_restarts=1)),
        (PGD(0.1, n_steps=2, n_restarts=1), PGD(0.1, n_steps=20, n_restarts=3)),
        (APGD(0.1, n_steps=2, n_restarts=1), APGD(0.1, n_steps=20, n_restarts=3)),
        (Square(0.1, n_queries=5), Square(0.1, n_queries=100)),
        (RandomSearch(0.1, n_queries=1), RandomSearch(0.1, n_queries=50)),
    ],
    ids=str,
)
def test_more_effort_is_not_weaker(weak: Attack, strong: Attack) -> None:
    model = tanh_network()
    images, labels = batch(model, n=60)
    victim = NoisyNetwork(model, NOISES["noisy"], images=images)
    reached = [
        float(mean_loss(model, attack(victim, images, labels, generator=generator()), labels, NOISES["noisy"]).mean())
        for attack in (weak, strong)
    ]
    assert mean_loss(model, images, labels, NOISES["noisy"]).mean() < reached[0] < reached[1] + 0.01


@pytest.mark.parametrize("name", OF_ANY_NORM)
def test_a_transfer_attack_makes_its_images_on_the_other_network(name: str) -> None:
    attack, (victim, images, labels) = ATTACKS[name], network()
    other, _, _ = network("without noise", seed=2)
    labels = torch.arange(len(images)) % 5
    expected = attack(other, images, labels, generator=generator())
    for follows in ("twin", "independent"):
        transfer = replace(attack, follows=follows)
        assert torch.equal(transfer(victim, images, labels, generator=generator(), other=other), expected)
        assert not transfer.white_box and transfer.efforts["n_draws"] == 1
        with pytest.raises(CannotRunError, match=f"there is no {follows} network without noise"):
            transfer(victim, images, labels, generator=generator())
    off = replace(attack, follows="off")
    assert torch.equal(
        off(victim, images, labels, generator=generator()),
        attack(victim.without_noise(), images, labels, generator=generator()),
    )


def test_images_for_another_network_are_attacked_to_the_end() -> None:
    """Those that barely fool one network rarely fool another."""
    for attack in (PGD(0.1), APGD(0.1), Square(0.1), RandomSearch(0.1)):
        assert replace(attack, early_stopping=True).stops_early
        for follows in ("off", "twin", "independent"):
            assert not replace(attack, early_stopping=True, follows=follows).stops_early
        with pytest.raises(ValueError, match="expected early_stopping only without noise, got noise at 1, under which"):
            replace(attack, early_stopping=True)(*network(), generator=generator())
    assert not FGM(0.1).stops_early


def test_the_settings_of_an_honest_evaluation_are_the_defaults() -> None:
    """Step ≤ ε/4, 5 starts or more, K = 20, APGD with 100 steps, 5,000 queries of 5."""
    assert [kind.noise_aware(0.08).label for kind in (FGM, PGD, APGD, Square, RandomSearch)] == [
        "fgm ce ε=0.08 K=20",
        "pgd ce ε=0.08 K=20 steps=40 restarts=5",
        "apgd ce ε=0.08 K=20 steps=100 restarts=5",
        "square ε=0.08 K=5 queries=5000",
        "random_search ε=0.08 K=20 queries=200",
    ]
    assert PGD(0.08).described()["step"] == 0.02
    assert PGD(0.08, step=0.01, random_start=False, n_restarts=1, norm="l2", follows="off").label == (
        "pgd ce l2 ε=0.08 K=1 steps=40 restarts=1 step=0.01 random_start=False off"
    )
    assert Darker(0.1, share=0.5).label == "darker ε=0.1 K=20 share=0.5"


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_images_labels_and_networks_are_named(name: str) -> None:
    attack, (victim, images, labels) = ATTACKS[name], network()
    for bad, match in (
        ({"images": images[0]}, r"expected float images .*got torch\.float64 \(2, 6, 6\)"),
        ({"images": images + 1}, r"expected pixels in \[0, 1\], got 1 to 2"),
        ({"images": images * torch.nan}, r"expected pixels in \[0, 1\], got nan"),
        ({"labels": labels[:2]}, r"expected 8 int64 labels, got torch\.int64 \(2,\)"),
        ({"labels": labels + 5}, "expected labels from 0 to 4, got"),
    ):
        with pytest.raises(ValueError, match=match):
            attack(**{"network": victim, "images": images, "labels": labels, "generator": generator()} | bad)
    victim.model.train()
    with pytest.raises(ValueError, match=r"training mode; call model\.eval\(\)"):
        attack(victim, images, labels, generator=generator())


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_settings_are_named(name: str) -> None:
    attack = ATTACKS[name]
    for changes, match in (
        ({"epsilon": 0.0}, "expected a finite epsilon above 0, got 0.0"),
        ({"epsilon": float("inf")}, "expected a finite epsilon above 0, got inf"),
        ({"norm": "l1"}, "expected a norm out of linf, l2, got 'l1'"),
        ({"follows": "loss"}, "expected a follows out of averaged, .*, got 'loss'"),
        ({"n_draws": 0}, "expected n_draws of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=match):
            replace(attack, **changes)
    for count in ("n_steps", "n_restarts", "n_queries", "n_targets"):
        if hasattr(attack, count):
            with pytest.raises(ValueError, match=f"{count}.* of at least 1, got "):
                replace(attack, **{count: 0})


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        (PGD, {"step": 0.0}, "expected a finite step above 0, got 0.0"),
        (PGD, {"step": float("nan")}, "expected a finite step above 0, got nan"),
        (PGD, {"random_start": False}, "expected n_restarts=1 without a random start, got 5"),
        (APGD, {"loss": "hinge"}, "expected a loss out of cross_entropy, dlr, .*, got 'hinge'"),
        (Square, {"p_init": 0.0}, r"expected p_init in \(0, 1\], got 0.0"),
        (Square, {"p_init": 1.1}, "got 1.1"),
        (type(Square.preble2026(0.1)), {"p_init": 1.0}, "expected p_init between 0 and 1, got 1.0"),
        (RandomSearch, {"points": "corners"}, "expected points out of vertices, uniform, got 'corners'"),
    ],
)
def test_bad_settings_of_one_attack_are_named(kind: type[Attack], changes: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        kind(0.1, **changes)


def test_square_needs_five_pixels_a_side_under_l2() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 4)).eval()
    images, labels = torch.rand(3, 1, 4, 6, generator=generator()), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match=r"expected images of at least 5 × 5 under l2, got \(4, 6\)"):
        Square(0.1, norm="l2")(NoisyNetwork(model, images=images), images, labels, generator=generator())


class Detached(nn.Module):
    """Logits that do not depend on the image, as far as a gradient can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Linear(72, 5, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(x.flatten(1).detach())


class RootOfZero(nn.Module):
    """Finite logits with a gradient of 0 · ∞."""

    def forward(self, z: Tensor) -> Tensor:
        return z + (0 * z).sqrt()


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_gradients_that_no_attack_can_follow_are_named(name: str) -> None:
    images = torch.rand(3, 2, 6, 6, generator=generator(), dtype=torch.float64)
    for model, match in (
        (Detached(), "expected logits that depend on the images through a gradient, got none"),
        (nn.Sequential(tanh_network(), RootOfZero()), "expected finite gradients, got NaN or infinity for 3 of 3"),
        (Stepwise(), "expected gradients that are not all zero, got only zeros for 3 of 3 images: a layer that is not"),
    ):
        with pytest.raises(GradientError, match=match):
            labels = model.eval()(images).argmax(1).detach()
            ATTACKS[name](NoisyNetwork(model, images=images), images, labels, generator=generator())


@dataclass(frozen=True)
class Cheating(Attack):
    """An attack that goes where it may not."""

    change: float = 0.0

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return images[:1] if not self.change else images + self.change


def test_an_attack_that_leaves_the_ball_or_the_pixels_is_named() -> None:
    victim, images, labels = network()
    for change, match in (
        (0.2, "expected cheating to stay within ε=0.1"),
        (1e-3, r"expected cheating to stay within ε=0.1 .* and in \[0, 1\], .* pixels from 0.001 to 1.001"),
        (float("nan"), "expected cheating to stay within"),
        (0.0, r"expected cheating to give images \(8, 2, 6, 6\), got \(1, 2, 6, 6\)"),
    ):
        with pytest.raises(ValueError, match=match):
            Cheating(0.1, change=change)(victim, images, labels, generator=generator())
