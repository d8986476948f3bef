"""Factor analysis: against scikit-learn and the published metrics, known answers, stated biases, real recordings."""

import numpy as np
import pytest
import reference
import xarray as xr
from reference import factors as loops

from neurovar import responses
from neurovar.statistics.estimation import _factors as factors
from neurovar.statistics.estimation._noise import noise_covariance

N_UNITS = 12


def structured(**options: int) -> xr.DataArray:
    """Two factors, unequal repeats, and some stimuli shown once."""
    defaults = {"n_units": N_UNITS, "n_stimuli": 60, "n_repeats": 6, "least_repeats": 1}
    return reference.recording("structured", **defaults | options)


def noise_of(n_trials: int, covariance: np.ndarray, seed: int = 0) -> xr.DataArray:
    """One stimulus."""
    draws = np.random.default_rng(seed).multivariate_normal(np.zeros(len(covariance)), covariance, n_trials)
    return reference.responses(draws[None])


def fitted(loadings: np.ndarray, private: np.ndarray) -> factors.FactorAnalysis:
    return factors.FactorAnalysis(
        xr.DataArray(loadings, dims=("unit", "factor")), xr.DataArray(private, dims="unit"), xr.DataArray(0.0), 1, True
    )


# References


@pytest.mark.parametrize("n_factors", [1, 2, 3])
def test_the_fit_is_that_of_scikit_learn(n_factors: int) -> None:
    da = structured()
    got = factors.factor_analysis(da, n_factors=n_factors, max_factors=3, n_folds=2, rng=0)
    dof = int((responses.repeat_counts(da) - 1).sum())
    shared, private = loops.factor_analysis(loops.residuals(da.values), n_factors, dof)
    assert got.dof == dof and got.n_factors == n_factors and got.converged and got.private.attrs["at_bound"] == []
    np.testing.assert_allclose(got.loadings.values @ got.loadings.values.T, shared, atol=2e-4)
    np.testing.assert_allclose(got.private.values, private, atol=2e-4)
    gram = got.loadings.values.T @ got.loadings.values
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-10)
    assert (np.diff(np.diag(gram)) < 0).all() and (got.loadings.sum("unit") >= 0).all()


def test_the_gradient_is_that_of_the_misfit() -> None:
    covariance = reference.noise_matrix("structured", N_UNITS)
    start = np.log(np.random.default_rng(0).uniform(0.2, 0.6, N_UNITS))
    _, gradient = factors._misfit(start, covariance, 1)
    steps = 1e-6 * np.eye(N_UNITS)
    change = [
        factors._misfit(start + h, covariance, 1)[0] - factors._misfit(start - h, covariance, 1)[0] for h in steps
    ]
    np.testing.assert_allclose(gradient, np.array(change) / 2e-6, rtol=1e-5, atol=1e-7)


def test_the_misfit_is_the_likelihood() -> None:
    covariance, private = reference.noise_matrix("structured", N_UNITS), np.linspace(0.2, 0.6, N_UNITS)
    loadings, _ = factors._best_loadings(covariance, private, 2)
    model = loadings @ loadings.T + np.diag(private)
    expected = np.linalg.slogdet(model)[1] + np.trace(np.linalg.inv(model) @ covariance)
    assert factors._misfit(np.log(private), covariance, 2)[0] == pytest.approx(expected, rel=1e-12)


def test_contrasts_are_the_noise_without_the_means() -> None:
    da = structured()
    contrasts = factors.noise_contrasts(da.values, np.random.default_rng(0))
    expected, dof = reference.noise_covariance(da.values)
    assert contrasts.shape == (dof, N_UNITS)
    np.testing.assert_allclose(contrasts.T @ contrasts / dof, expected, atol=1e-12)
    moved = da + np.arange(60)[:, None, None]
    np.testing.assert_allclose(factors.noise_contrasts(moved.values, np.random.default_rng(0)), contrasts, atol=1e-10)


def test_contrasts_do_not_know_one_another() -> None:
    """Over many draws a stimulus's contrasts are uncorrelated, of variance 1; residuals correlate by −1/(R − 1)."""
    rng, n = np.random.default_rng(0), 20_000
    draws = np.array([factors.noise_contrasts(rng.normal(3, 1, size=(1, 3, 1)), rng)[:, 0] for _ in range(n)])
    np.testing.assert_allclose(draws.T @ draws / n, np.eye(2), atol=4 * np.sqrt(2 / n))


def test_folds_are_of_all_stimuli() -> None:
    """The first stimuli are the noisiest, but not the first contrasts."""
    values = np.random.default_rng(0).normal(size=(200, 3, 2)) * np.where(np.arange(200) < 100, 10, 0.1)[:, None, None]
    contrasts = factors.noise_contrasts(values, np.random.default_rng(0))
    noisy = np.abs(contrasts).max(axis=1) > 0.8
    assert noisy.sum() == pytest.approx(200, abs=12) and 80 < noisy[:200].sum() < 120


def test_held_out_likelihood_is_that_of_scikit_learn_and_scipy() -> None:
    da = structured(n_stimuli=30)
    contrasts = factors.noise_contrasts(da.values, np.random.default_rng(3))
    got = factors.factor_analysis(da, max_factors=2, n_folds=4, rng=3).log_likelihood
    assert got.n_factors.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(got.values, loops.held_out_likelihood(contrasts, 2, 4), atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_the_public_code(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(N_UNITS, 4)))
    loadings, private = axes * [2, 1, 0.6, 0.2], rng.uniform(0.2, 2, N_UNITS)
    percent, similarity, dimensions = loops.population_metrics(loadings, private)
    got = fitted(loadings, private)
    np.testing.assert_allclose(got.percent_shared_variance.values, percent)
    np.testing.assert_allclose(got.loading_similarity.values, similarity, atol=1e-12)
    assert got.shared_dimensionality() == dimensions == 3


def test_metrics_of_simple_loadings() -> None:
    got = fitted(np.array([[1.0, 0.5], [1, -0.5], [1, 0.5], [1, -0.5]]), np.ones(4))
    np.testing.assert_allclose(got.loading_similarity.values, [1, 0])
    np.testing.assert_allclose(got.percent_shared_variance.values, 100 * 1.25 / 2.25)
    dimensions = [got.shared_dimensionality(threshold=threshold) for threshold in (0.5, 0.8, 0.81, 1.0)]
    assert dimensions == [1, 1, 2, 2]
    none = fitted(np.empty((4, 0)), np.ones(4))
    assert none.shared_dimensionality() == 0 and none.loading_similarity.size == 0
    assert (none.percent_shared_variance == 0).all()


def test_the_structure() -> None:
    got = factors.factor_analysis(structured(), n_factors=2, max_factors=2, n_folds=2, rng=0)
    expected = got.loadings.values @ got.loadings.values.T + np.diag(got.private.values)
    np.testing.assert_allclose(got.covariance().to_dense().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(np.diag(expected), np.diag(noise_covariance(structured()).values), rtol=1e-4)


# Known answers


@pytest.mark.parametrize("least_repeats", [None, 2])
def test_two_factors_are_found_under_strong_signals(least_repeats: int | None) -> None:
    noise = reference.noise_matrix("structured", 20)
    signal = 4 * np.eye(20) + 9
    for seed in range(3):
        da = reference.simulate(
            signal=signal, noise=noise, n_stimuli=80, n_repeats=6, least_repeats=least_repeats, seed=seed
        )
        got = factors.factor_analysis(da, max_factors=5, n_folds=5, rng=seed)
        assert got.n_factors == 2
        assert np.linalg.norm(got.covariance().to_dense().numpy() - noise) < 0.2 * np.linalg.norm(noise)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("n_stimuli", [1, 40])
def test_independent_noise_has_no_factors(counts: bool, n_stimuli: int) -> None:
    rng = np.random.default_rng(1)
    rates = rng.uniform(1, 10, size=(n_stimuli, 1, N_UNITS))
    for _ in range(3):
        size = (n_stimuli, 240 // n_stimuli, N_UNITS)
        values = rng.poisson(rates, size).astype(float) if counts else rng.normal(rates, np.arange(1, 13), size)
        got = factors.shared_variance(reference.responses(values), max_factors=3, n_folds=5, rng=0)
        assert got.n_factors == 0 and got.shared_dimensionality == 0
        assert (got.percent_shared_variance == 0).all()


@pytest.mark.parametrize(("part", "dof", "n"), [(0.3, 200, 60), (0.7, 400, 40)])
def test_bias_of_shared_variance(part: float, dof: int, n: int) -> None:
    """100 (1 − ρ)(k − 2ρ)/dof with known k = 3, on 60 units."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(60, 3))
    loadings *= np.sqrt(part / (loadings**2).sum(axis=1, keepdims=True))
    root = np.linalg.cholesky(loadings @ loadings.T + (1 - part) * np.eye(60))
    got = []
    for _ in range(n):
        draws = rng.normal(size=(dof, 60)) @ root.T
        estimate, private, _ = factors.factor_analysis_kernel(draws.T @ draws / dof, 3)
        got.append(fitted(estimate, private).percent_shared_variance.values.mean() - 100 * part)
    error = np.std(got) / np.sqrt(n)
    assert abs(np.mean(got) - 100 * (1 - part) * (3 - 2 * part) / dof) < 2 * error
    assert part > 0.5 or np.mean(got) > 2 * error, "overfitting is seen"


def test_few_trials_inflate_what_weak_factors_share() -> None:
    """4.6 points for 20 units that share 10 % along 3 factors, from 200 degrees of freedom."""
    rng = np.random.default_rng(0)
    got = []
    for _ in range(40):
        loadings = rng.normal(size=(20, 3))
        loadings *= np.sqrt(0.1 / (loadings**2).sum(axis=1, keepdims=True))
        draws = rng.normal(size=(200, 3)) @ loadings.T + np.sqrt(0.9) * rng.normal(size=(200, 20))
        estimate, private, _ = factors.factor_analysis_kernel(draws.T @ draws / 200, 3)
        got.append(fitted(estimate, private).percent_shared_variance.values.mean() - 10)
    assert np.mean(got) == pytest.approx(4.6, abs=2 * np.std(got) / np.sqrt(40) + 0.2)


def test_scales_of_units_change_only_what_is_said() -> None:
    da = structured()
    scale = np.linspace(0.5, 20, N_UNITS)
    got, scaled = (
        factors.factor_analysis(recorded, n_factors=2, max_factors=3, n_folds=4, rng=0) for recorded in (da, da * scale)
    )
    np.testing.assert_allclose(scaled.log_likelihood, got.log_likelihood - np.log(scale).sum(), atol=1e-5)
    np.testing.assert_allclose(scaled.percent_shared_variance, got.percent_shared_variance, rtol=1e-3)
    np.testing.assert_allclose(scaled.private, got.private * scale**2, rtol=1e-3)


def test_a_unit_without_private_noise_meets_the_bound() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 200, 6))
    values[..., 1:4] += values[..., :1]
    got = factors.factor_analysis(reference.responses(values), n_factors=1, max_factors=1, n_folds=2, rng=0)
    assert got.private.attrs["at_bound"] == [0]
    assert float(got.private[0]) == pytest.approx(0.01 * values[0, :, 0].var(ddof=1), rel=1e-3)


def test_less_variance_than_is_private_already_has_no_factor() -> None:
    loadings, _ = factors._best_loadings(np.eye(4), 2 * np.ones(4), 2)
    assert (loadings == 0).all()


def test_fits_that_do_not_converge_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "MOST_STEPS", 1)
    da = structured(n_stimuli=20)
    contrasts = factors.noise_contrasts(da.values, np.random.default_rng(0))
    assert not factors.cross_validated_likelihood(contrasts, 1, 2)[1]
    assert not factors.factor_analysis(da, max_factors=1, n_folds=2, rng=0).converged
    assert factors.factor_analysis(da, max_factors=0, n_folds=2, rng=0).converged


def test_fewer_trials_than_units() -> None:
    got = factors.factor_analysis(noise_of(15, np.eye(30) + 2), n_factors=1, max_factors=1, n_folds=5, rng=0)
    assert got.converged and float(got.percent_shared_variance.mean()) == pytest.approx(67, abs=12)


def test_single_precision_and_integers() -> None:
    da = structured()
    expected = factors.factor_analysis(da, max_factors=2, n_folds=2, rng=0)
    got = factors.factor_analysis(da.astype(np.float32), max_factors=2, n_folds=2, rng=0)
    np.testing.assert_allclose(got.private, expected.private, rtol=1e-3)
    whole = reference.responses(np.random.default_rng(0).poisson(5, size=(5, 40, 4)))
    as_floats = factors.factor_analysis(whole.astype(float), max_factors=1, n_folds=2, rng=0)
    xr.testing.assert_equal(factors.factor_analysis(whole, max_factors=1, n_folds=2, rng=0).private, as_floats.private)


def test_a_seed_means_one_result() -> None:
    da, options = structured(n_stimuli=20), {"n_factors": 1, "max_factors": 2, "n_folds": 3}
    first, again, other = (factors.factor_analysis(da, **options, rng=seed) for seed in (0, 0, 1))
    xr.testing.assert_identical(first.log_likelihood, again.log_likelihood)
    assert not first.log_likelihood.equals(other.log_likelihood)
    np.testing.assert_allclose(first.private, other.private, rtol=1e-4)


def test_labels_and_groups() -> None:
    area = ("unit", ["V1"] * 7 + ["V2"] * 5)
    da = structured().assign_coords(area=area).assign_attrs(source="simulation")
    got = factors.shared_variance(da, max_factors=2, n_folds=2, rng=0, by="area")
    for name, units in (("V1", slice(7)), ("V2", slice(7, None))):
        alone = factors.shared_variance(da.isel(unit=units), max_factors=2, n_folds=2, rng=0)
        assert alone.percent_shared_variance.area.values.tolist() == [name] * len(alone.unit)
        assert alone.attrs["source"] == "simulation"
        of_area = got.sel(area=name)
        np.testing.assert_allclose(of_area.percent_shared_variance.values[units], alone.percent_shared_variance.values)
        np.testing.assert_allclose(of_area.loading_similarity.dropna("factor"), alone.loading_similarity)
        assert int(of_area.n_factors) == int(alone.n_factors) > 0


# Bad input

GOOD = structured(n_stimuli=20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_factors": 8}, r"expected max_factors from 0 to 7 \(12 units, \d+ dof\), got 8"),
        ({"max_factors": -1}, "expected max_factors from 0 to 7"),
        ({"n_factors": 3}, "expected n_factors from 0 to max_factors = 2, got 3"),
        ({"n_factors": -1}, "expected n_factors from 0 to max_factors = 2, got -1"),
        ({"n_folds": 1}, "expected from 2 folds to one a degree of freedom, of which there are .*, got 1"),
        ({"n_folds": 1000}, "expected from 2 folds .* got 1000"),
    ],
)
def test_options_out_of_range(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factors.factor_analysis(GOOD, **{"max_factors": 2, "n_folds": 2, "rng": 0} | changes)


def test_too_few_trials_for_the_factors() -> None:
    with pytest.raises(ValueError, match=r"expected max_factors from 0 to 2 \(12 units, 5 dof\), got 3"):
        factors.factor_analysis(noise_of(6, np.eye(12)), max_factors=3, n_folds=3, rng=0)


def test_bad_responses() -> None:
    options = {"max_factors": 1, "n_folds": 2, "rng": 0}
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        factors.factor_analysis(GOOD.isel(repeat=slice(0, 1)).dropna("stimulus"), **options)
    with pytest.raises(ValueError, match="expected dims"):
        factors.factor_analysis(GOOD.transpose("unit", "repeat", "stimulus"), **options)
    with pytest.raises(ValueError, match="expected units that were recorded together"):
        factors.factor_analysis(reference.apart(GOOD), **options)
    constant = GOOD.copy(deep=True)
    constant.values[..., 3] = np.where(np.isnan(constant.values[..., 3]), np.nan, 0.1)
    with pytest.raises(ValueError, match=r"expected units that vary between repeats, got 1 .*positions \[3\]"):
        factors.factor_analysis(constant, **options)
    with pytest.raises(ValueError, match=r"expected a threshold above 0 and at most 1, got 1\.5"):
        fitted(np.ones((2, 1)), np.ones(2)).shared_dimensionality(threshold=1.5)


def test_a_unit_that_varies_in_one_fold_only() -> None:
    values = np.random.default_rng(0).normal(size=(8, 2, 5))
    values[1:, :, 2] = 1.0
    with pytest.raises(ValueError, match=r"expected units that vary outside of each fold, got positions \[2\]"):
        factors.factor_analysis(reference.responses(values), max_factors=1, n_folds=4, rng=0)


# Real recordings


@pytest.mark.data
def test_v4() -> None:
    from neurovar_datasets import cowley2023_v4

    da = cowley2023_v4.load(session="210325")
    got = factors.factor_analysis(da, max_factors=6, n_folds=3, rng=0)
    assert got.converged and got.dof == 4200 and 4 <= got.n_factors <= 6
    assert float(got.percent_shared_variance.mean()) == pytest.approx(8.5, abs=1)
    assert float(got.loading_similarity[0]) == pytest.approx(0.50, abs=0.02)
    assert got.shared_dimensionality() == pytest.approx(4, abs=1)


@pytest.mark.data
def test_v1_and_v2() -> None:
    from neurovar_datasets import gokcen2023_v1v2

    got = factors.shared_variance(gokcen2023_v1v2.load(), max_factors=3, n_folds=2, rng=0, by="area")
    assert got.area.values.tolist() == ["V1", "V2"] and (got.n_factors == 3).all()
    assert (got.loading_similarity.sel(factor=1) > 0.4).all()
