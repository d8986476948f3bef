"""The search for a clean accuracy, against one that is known as a function of the trace."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from neurovar.covariance import Diagonal
from neurovar.networks import NoisyNetwork
from neurovar.robustness import Match, match_clean_accuracy
from neurovar.robustness.baselines._matching import clean_accuracy


def sign_of_a_pixel() -> nn.Sequential:
    """Logits (x, 0): under noise of variance t on x = 1, the sum of K draws is right with probability Φ(√(K/t))."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False)).eval()
    model[1].weight.data = torch.tensor([[1.0], [0.0]])
    return model


MODEL = sign_of_a_pixel()


def noisy(trace: float) -> NoisyNetwork:
    return NoisyNetwork(MODEL, {"0": Diagonal.isotropic(1, variance=trace)}, images=torch.full((1, 1, 1, 1), 0.5))


def switched_to_training() -> NoisyNetwork:
    network = NoisyNetwork(sign_of_a_pixel(), images=torch.full((1, 1, 1, 1), 0.5))
    network.model.train()
    return network


def data(n: int) -> tuple[Tensor, Tensor]:
    return torch.ones(n, 1, 1, 1), torch.zeros(n, dtype=torch.int64)


def search(accuracy: float, *, n: int = 2000, seed: int = 0, **changes: object) -> Match:
    given = {
        "make": noisy,
        "low": 0.05,
        "high": 50.0,
        "tolerance": 0.02,
        "n_draws": 1,
        "max_evaluations": 20,
        "generator": torch.Generator().manual_seed(seed),
    } | dict(zip(("images", "labels"), data(n)))
    return match_clean_accuracy(accuracy=accuracy, **(given | changes))


@pytest.mark.parametrize("n_draws", [1, 5])
@pytest.mark.parametrize("trace", [0.5, 3.0, 20.0])
def test_clean_accuracy_is_that_of_the_summed_logits(trace: float, n_draws: int) -> None:
    expected = norm.cdf((n_draws / trace) ** 0.5)
    measured = clean_accuracy(noisy(trace), *data(4000), n_draws=n_draws, generator=torch.Generator().manual_seed(0))
    assert abs(measured - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5 + 1e-3
    assert (
        clean_accuracy(
            NoisyNetwork(MODEL, images=torch.full((1, 1, 1, 1), 0.5)), *data(5), n_draws=3, generator=torch.Generator()
        )
        == 1
    )


@pytest.mark.parametrize("wanted", [0.6, 0.7, 0.8413, 0.95])
def test_the_trace_of_a_known_accuracy_is_found(wanted: float) -> None:
    """Over 20 searches: the true accuracy at the trace found is the wanted one to the tolerance and the error."""
    matches = [search(wanted, n=1000, seed=seed) for seed in range(20)]
    assert all(match.reached for match in matches)
    assert all(abs(match.accuracy - wanted) <= 0.02 for match in matches)
    truth = np.array([norm.cdf(match.amount**-0.5) for match in matches])
    error = (wanted * (1 - wanted) / 1000) ** 0.5
    assert abs(truth - wanted).max() < 0.02 + 4 * error
    assert abs(truth.mean() - wanted) < 0.02
    assert all(match.n_evaluations <= 12 for match in matches)


def test_the_standard_error_is_that_of_the_accuracy_at_the_amount_found() -> None:
    match = search(0.8, n=500)
    repeated = [
        clean_accuracy(noisy(match.amount), *data(500), n_draws=1, generator=torch.Generator().manual_seed(seed))
        for seed in range(200)
    ]
    assert abs(match.standard_error / np.std(repeated) - 1) < 0.25
    perfect = search(1.0, n=50, low=1e-6, high=1e-5)
    assert perfect.accuracy == 1
    assert 0.01 < perfect.standard_error < 0.05


def test_the_search_is_closer_on_its_own_images_than_it_is() -> None:
    """The winner's curse that the docstring states: with a tolerance far below the error, by far."""
    matches = [search(0.8, n=100, tolerance=0.001, seed=seed, max_evaluations=40) for seed in range(20)]
    found = [match for match in matches if match.reached]
    assert len(found) > 10
    fresh = [
        clean_accuracy(match.network, *data(2000), n_draws=1, generator=torch.Generator().manual_seed(99))
        for match in found
    ]
    assert max(abs(match.accuracy - 0.8) for match in found) <= 0.001
    assert np.abs(np.array(fresh) - 0.8).mean() > 0.005
    assert all("the tolerance 0.001 is below 2 standard errors" in match.message for match in found)


def test_an_accuracy_that_rises_with_the_amount_is_found_too() -> None:
    match = search(0.7, make=lambda amount: noisy(1 / amount), low=1 / 50, high=20.0)
    assert match.reached
    assert abs(norm.cdf(match.amount**0.5) - 0.7) < 0.06


def test_every_evaluation_is_kept_and_the_nearest_returned() -> None:
    asked = []

    def make(trace: float) -> NoisyNetwork:
        asked.append(trace)
        return noisy(trace)

    match = search(0.8, make=make, tolerance=1e-6, max_evaluations=7)
    assert match.tried["amount"].values.tolist() == asked
    assert match.n_evaluations == len(asked) == 7
    assert asked[:2] == [0.05, 50.0]
    assert all(0.05 < amount < 50 for amount in asked[2:])
    nearest = int(np.abs(match.tried.values - 0.8).argmin())
    assert (match.amount, match.accuracy) == (asked[nearest], match.tried.values[nearest])
    assert match.network.noises["0"].trace() == pytest.approx(match.amount)
    assert match.reached == (abs(match.accuracy - 0.8) <= 1e-6)


def test_two_evaluations_halve_the_bracket_however_crooked_the_accuracy_is() -> None:
    """A step from 1 to 0.5 at 7: no amount has 0.8, and the bracket closes in on the step."""
    match = search(0.8, make=lambda trace: noisy(1e-6 if trace < 7 else 1e9), max_evaluations=24, n=500)
    assert not match.reached
    assert match.message.startswith("not reached 0.8000 within 0.02: clean accuracy ")
    tried = match.tried["amount"].values
    below, above = tried[tried < 7].max(), tried[tried >= 7].min()
    assert np.log(above / below) < np.log(1000) / 2**10


@pytest.mark.parametrize(("wanted", "nearest"), [(0.2, 50.0), (0.9999, 0.5)])
def test_an_accuracy_out_of_reach_is_said_to_be_with_what_was_reached(wanted: float, nearest: float) -> None:
    match = search(wanted, low=0.5, tolerance=0.01)
    assert not match.reached
    assert match.n_evaluations == 2
    assert match.amount == nearest
    first, last = match.tried.values
    between = f"not reached {wanted:.4f}, which is not between {first:.4f} at 0.5 and {last:.4f} at 50: clean accuracy"
    assert match.message.startswith(between)


def test_an_end_that_has_the_accuracy_is_taken() -> None:
    match = search(float(norm.cdf(0.05**-0.5)))
    assert match.reached
    assert (match.amount, match.n_evaluations) == (0.05, 1)
    assert match.message == (
        f"reached 1.0000: clean accuracy {match.accuracy:.4f} ± {match.standard_error:.4f} at 0.05, after 1 evaluations"
    )


def test_the_same_generator_gives_the_same_match() -> None:
    one, other = search(0.7, seed=4), search(0.7, seed=4)
    assert (one.amount, one.accuracy) == (other.amount, other.accuracy)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"low": 0.0}, "expected 0 < low < high, got 0.0 and 50.0"),
        ({"low": 60.0}, "expected 0 < low < high, got 60.0 and 50.0"),
        ({"high": float("inf")}, "expected 0 < low < high, got 0.05 and inf"),
        ({"accuracy": 0.0}, r"expected an accuracy in \(0, 1\] and a tolerance in \(0, 1\), got 0.0 and 0.02"),
        ({"accuracy": 1.1}, "got 1.1 and 0.02"),
        ({"tolerance": 0.0}, "got 0.7 and 0.0"),
        ({"n_draws": 0}, "expected at least 1 draw and 2 evaluations, got 0 and 20"),
        ({"max_evaluations": 1}, "expected at least 1 draw and 2 evaluations, got 1 and 1"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"expected images and a label for each, got 2000 and \(3,\)"),
        ({"labels": torch.full((2000,), 2)}, r"expected labels from 0 to 1, got 2 to 2"),
        ({"make": lambda trace: MODEL}, "expected make to return a NoisyNetwork, got Sequential"),
        ({"make": lambda trace: switched_to_training()}, "expected a model in evaluation mode"),
    ],
)
def test_bad_input_is_named(changes: dict, match: str) -> None:
    given = {"accuracy": 0.7} | changes
    with pytest.raises(ValueError, match=match):
        search(**given)
