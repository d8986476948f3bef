"""Window sweeps, the bound of smooth codes, intervals of exponents, and the figure of a spectrum."""

from pathlib import Path

import numpy as np
import pytest
import reference
import xarray as xr
from matplotlib.axes import Axes
from reference import spectra as plain

from neurovar import plotting, statistics
from neurovar.statistics import PowerLaw, UnreliableFit


def spectrum_of(values: np.ndarray, method: str = "cvpca") -> xr.DataArray:
    return xr.DataArray(values, dims="rank", coords={"rank": np.arange(1, len(values) + 1)}, attrs={"method": method})


@pytest.fixture
def ax() -> Axes:
    return plotting.figure()[1][0, 0]


# Sweep and bound


def test_a_sweep_is_every_fit() -> None:
    values = plain.power_law(60, 0.5, late=1.5, break_rank=10)
    values[44] = -0.1
    spectrum = spectrum_of(values)
    sweep = statistics.window_sweep(spectrum, lows=[1, 20], highs=[10, 40, 50, 70])
    assert sweep.sizes == {"low": 2, "high": 4} and sweep.attrs == {"method": "cvpca"}
    for window in ((1, 10), (1, 40), (20, 40)):
        expected, _ = reference.public_power_law(values, *window)
        assert float(sweep.sel(low=window[0], high=window[1])) == pytest.approx(expected, rel=1e-6)
        assert str(sweep["reason"].sel(low=window[0], high=window[1]).item()) == ""
    assert np.isnan(sweep.values).tolist() == [[False, False, True, True], [True, False, True, True]]
    reasons = sweep["reason"].values
    assert reasons[0, 2].startswith("expected positive variances at ranks 1–50, got 1 that are not (first at rank 45)")
    assert reasons[1, 0] == "expected a window of at least 3 ranks within 1–60, got 20–10"
    assert reasons[0, 3] == "expected a window of at least 3 ranks within 1–60, got 1–70"


def test_sweeps_of_nothing() -> None:
    with pytest.raises(ValueError, match="expected at least one low and one high rank, got 0 and 1"):
        statistics.window_sweep(spectrum_of(np.ones(5)), lows=[], highs=[3])
    with pytest.raises(ValueError, match="expected a spectrum with dim and coordinate 'rank', got dims"):
        statistics.window_sweep(spectrum_of(np.ones(5)).rename(rank="n"), lows=[1], highs=[3])


@pytest.mark.parametrize(("d", "bound"), [(1, 3.0), (4, 1.5), (8, 1.25), (np.inf, 1.0)])
def test_the_published_bounds(d: float, bound: float) -> None:
    assert statistics.smoothness_bound(d) == bound


@pytest.mark.parametrize("d", [0, -1, np.nan])
def test_no_stimulus_dimensions(d: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number of stimulus dimensions, got"):
        statistics.smoothness_bound(d)


# Intervals


@pytest.mark.parametrize(
    ("of", "method", "window"),
    [
        ("signal", "cvpca", {"ranks": (1, 7)}),
        ("signal", "cross_decomposition", {"ranks": (1, 5)}),
        ("signal", "meme", {"n_moments": 3}),
        ("noise", "cvpca", {"ranks": (1, 7)}),
    ],
)
def test_the_standard_error_is_the_spread_of_new_recordings(of: str, method: str, window: dict) -> None:
    """Over stimuli, within a quarter, so that 95 % intervals cover the estimator's mean about as often."""
    estimates, errors = [], []
    for seed in range(30):
        values = plain.population(plain.power_law(16, 1.0), noise="aligned", n_stimuli=100, n_repeats=4, seed=seed)
        if of == "noise":
            values = np.random.default_rng(seed).standard_normal((60, 6, 16)) * np.sqrt(plain.power_law(16, 1.0))
        interval = statistics.exponent_interval(
            reference.responses(values),
            of=of,
            method=method,
            **window,
            n_splits=4,
            n_bootstrap=16,
            over=("stimulus",),
            rng=seed,
        )
        estimates.append(interval.estimate)
        errors.append(interval.standard_error)
    spread = np.std(estimates, ddof=1)
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)
    assert np.mean(abs(np.array(estimates) - np.mean(estimates)) < 1.96 * np.array(errors)) >= 0.8


def test_over_units_too() -> None:
    """Units drawn from many: the spread over recordings of other units and stimuli, which is larger."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((400, 400)) * np.sqrt(plain.power_law(400, 1.2))
    estimates, errors, over_stimuli = [], [], []
    options = {"of": "signal", "method": "cvpca", "ranks": (1, 7), "n_splits": 2, "n_bootstrap": 16, "rng": 0}
    for _ in range(30):
        signal = rng.standard_normal((200, 400)) @ loadings[rng.permutation(400)[:24]].T / 20
        da = reference.responses(signal[:, None] + 0.1 * rng.standard_normal((200, 4, 24)))
        both = statistics.exponent_interval(da, over=("stimulus", "unit"), **options)
        estimates.append(both.estimate)
        errors.append(both.standard_error)
        over_stimuli.append(statistics.exponent_interval(da, over=("stimulus",), **options).standard_error)
    assert np.mean(errors) == pytest.approx(np.std(estimates, ddof=1), rel=0.3)
    assert np.mean(errors) > 1.3 * np.mean(over_stimuli)


def test_an_interval_by_hand() -> None:
    """The estimate is that of all data, and the halves are counted."""
    da = statistics.population(n_stimuli=40, n_repeats=4, n_units=8, exponent=1.0, rng=0)
    options = {"of": "signal", "method": "cvpca", "ranks": (1, 4), "n_splits": 2, "over": ("stimulus",)}
    interval = statistics.exponent_interval(da, **options, n_bootstrap=9, rng=3)
    own = np.random.default_rng(3).spawn(10)[0]
    spectrum = statistics.signal_spectrum(da, method="cvpca", n_splits=2, rng=own)
    assert interval.estimate == statistics.fit_power_law(spectrum, ranks=(1, 4)).exponent
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * interval.standard_error)
    assert interval.low + interval.high == pytest.approx(2 * interval.estimate)
    assert interval.n_replicates == 9
    assert interval == statistics.exponent_interval(da, **options, n_bootstrap=9, rng=3, n_jobs=2)
    assert interval != statistics.exponent_interval(da, **options, n_bootstrap=9, rng=4)


def test_halves_without_an_exponent_are_not_counted() -> None:
    """Two units have most of the signal: a half without both has no variances to fit."""
    values = np.random.default_rng(0).standard_normal((60, 4, 12))
    values[:, :, :6] += 3 * np.random.default_rng(1).standard_normal((60, 1, 6))
    options = {"of": "signal", "method": "cvpca", "ranks": (1, 5), "n_splits": 5, "over": ("unit",), "rng": 0}
    interval = statistics.exponent_interval(reference.responses(values), n_bootstrap=20, **options)
    assert 2 <= interval.n_replicates < 20


DA = statistics.population(n_stimuli=40, n_repeats=4, n_units=8, exponent=1.0, rng=0)
OPTIONS = {
    "of": "signal",
    "method": "cvpca",
    "ranks": (1, 4),
    "n_splits": 2,
    "n_bootstrap": 4,
    "over": ("stimulus",),
    "rng": 0,
}


@pytest.mark.parametrize(
    ("da", "options", "message"),
    [
        (DA, {"over": "stimulus"}, r"expected over= some of \('stimulus', 'unit'\), got 'stimulus'"),
        (DA, {"over": ()}, r"expected over= some of \('stimulus', 'unit'\), got \(\)"),
        (DA, {"over": ("repeat",)}, r"expected over= some of \('stimulus', 'unit'\), got \('repeat',\)"),
        (DA, {"n_bootstrap": 1}, "expected at least 2 bootstrap samples, got 1"),
        (DA, {"of": "both"}, "expected of='signal' or 'noise', got 'both'"),
        (DA, {"method": "pca"}, "expected method 'cvpca' or 'cross_decomposition', got 'pca'"),
        (DA, {"ranks": None}, "expected ranks and no n_moments for 'cvpca', got None and None"),
        (DA, {"n_moments": 4}, r"expected ranks and no n_moments for 'cvpca', got \(1, 4\) and 4"),
        (DA, {"method": "meme"}, r"expected n_moments of at least 2 and no ranks for 'meme', got None and \(1, 4\)"),
        (DA, {"ranks": (1, 9)}, "expected a window of at least 3 ranks within 1–8, got 1–9"),
        (
            DA[:, :, :3],
            {"ranks": (1, 3), "over": ("unit",)},
            "expected at least 4 along 'unit' to draw halves of, got 3",
        ),
        (DA, {"ranks": (1, 8), "over": ("unit",)}, "expected at least 2 halves with a reliable exponent, got 0 of 4"),
        (DA[:, :1], {}, "expected at least 2 repeats of some stimulus, got at most 1"),
    ],
)
def test_bad_intervals(da: xr.DataArray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.exponent_interval(da, **{**OPTIONS, **options})


def test_an_exponent_that_cannot_be_trusted_has_no_interval() -> None:
    noise = reference.responses(np.random.default_rng(0).standard_normal((40, 2, 8)))
    with pytest.raises(UnreliableFit, match="expected positive variances") as caught:
        statistics.exponent_interval(noise, **OPTIONS)
    assert isinstance(caught.value.estimate, PowerLaw)


# Figure


def test_what_is_drawn(ax: Axes) -> None:
    drawn = {"V1": spectrum_of(np.array([4.0, 2.0, -1.0, 1.0])), "_conv1": spectrum_of(np.array([9.0, 3.0, 1.0]))}
    plotting.plot_spectrum(drawn, ax, fits={"_conv1": PowerLaw(1.5, 9.0, (1, 3))}, d=4)
    v1, layer, fit, bound = ax.lines if ax.lines[2].get_linewidth() == 0.8 else ()
    assert list(v1.get_xdata()) == [1, 2, 4] and list(v1.get_ydata()) == [1, 0.5, 0.25]
    np.testing.assert_allclose(layer.get_ydata(), [1, 1 / 3, 1 / 9])
    np.testing.assert_allclose([fit.get_xdata(), fit.get_ydata()], [[1, 3], [1, 3**-1.5]])
    np.testing.assert_allclose([bound.get_xdata(), bound.get_ydata()], [[1, 4], [1, 4**-1.5]])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["V1", "_conv1, α = 1.50", "bound 1 + 2/d = 1.50"]
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_title(loc="left")) == ("log", "log", "cvPCA")


def test_the_bound_is_drawn_where_d_is_known_only(ax: Axes) -> None:
    plotting.plot_spectrum({"V1": spectrum_of(np.array([4.0, 2.0]))}, ax)
    assert len(ax.lines) == 1


def test_a_spectrum_that_starts_below_zero_is_not_drawn(ax: Axes) -> None:
    plotting.plot_spectrum({"V1": spectrum_of(np.array([-4.0, 2.0]))}, ax)
    assert ax.get_legend().get_texts()[0].get_text() == "V1 (n/a)"


def test_estimators_are_drawn_in_panels_of_their_own(ax: Axes, tmp_path: Path) -> None:
    da = statistics.population(n_stimuli=40, n_repeats=4, n_units=8, exponent=1.0, rng=0)
    held_out = statistics.signal_spectrum(da, method="cvpca", n_splits=1, rng=0)
    matched = statistics.fit_eigenmoments(da, of="signal", law="single", n_moments=3, n_splits=1, rng=0).spectrum()
    with pytest.raises(ValueError, match="expected spectra of one method, got cvpca, meme"):
        plotting.plot_spectrum({"V1": held_out, "V2": matched}, ax)
    fig, axes = plotting.figure(1, 2)
    for spectrum, panel in zip((held_out, matched), axes[0]):
        plotting.plot_spectrum({"V1": spectrum}, panel)
    fig.savefig(tmp_path / "spectra.png")
    assert [panel.get_title(loc="left") for panel in axes[0]] == ["cvPCA", "MEME"]


@pytest.mark.parametrize(
    ("spectra_", "fits", "message"),
    [({}, None, "expected spectra of one method, got none"), (["V1"], ["V2"], "expected fits of V1, got one of V2")],
)
def test_figures_of_nothing(spectra_: list[str], fits: list[str] | None, message: str, ax: Axes) -> None:
    drawn = {name: spectrum_of(np.ones(3)) for name in spectra_}
    laws = {name: PowerLaw(1.0, 1.0, (1, 3)) for name in fits or []}
    with pytest.raises(ValueError, match=message):
        plotting.plot_spectrum(drawn, ax, fits=laws)
