"""The figure of a recording draws the values that are there, and the reasons for those that are not."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

from neurovar import plotting


@pytest.fixture
def ax() -> Axes:
    return plotting.figure()[1][0, 0]


@pytest.fixture
def described() -> xr.Dataset:
    rng = np.random.default_rng(0)
    names = {"noise_correlation": 45, "signal_correlation": 45, "reliability": 10, "mean_response": 10}
    variables = {
        name: ("pair" if n == 45 else "unit", rng.uniform(0.1, 0.9, n), {"reason": "", "label": name.replace("_", " ")})
        for name, n in names.items()
    }
    variance = ("unit", variables["mean_response"][1] * 2, {"reason": ""})
    return xr.Dataset(variables | {"noise_variance": variance}, attrs={"units": "spike count"})


def texts(ax: Axes) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in ax.texts)


def refused(described: xr.Dataset, name: str, reason: str) -> xr.Dataset:
    return described.assign({name: (described[name] * np.nan).assign_attrs(reason=reason)})


def test_every_value_is_in_the_histogram(described: xr.Dataset, ax: Axes) -> None:
    values = described["noise_correlation"].values
    values[3] = np.nan
    plotting.plot_distribution(described, "noise_correlation", ax)
    assert sum(patch.get_height() for patch in ax.patches) == 44
    assert ax.lines[0].get_xdata()[0] == pytest.approx(np.nanmean(values))
    assert ax.get_title(loc="right") == f"mean {np.nanmean(values):.3f}"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("noise correlation", "pairs of units")


def test_variance_is_drawn_against_the_mean_with_the_poisson_line(described: xr.Dataset, ax: Axes) -> None:
    described["mean_response"][2] = 0
    plotting.plot_variance(described, ax)
    line, points = ax.lines
    kept = np.delete(np.arange(10), 2)
    np.testing.assert_array_equal(points.get_xdata(), described["mean_response"][kept])
    np.testing.assert_array_equal(points.get_ydata(), described["noise_variance"][kept])
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean (spike count)", "noise variance\n(spike count)²")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Poisson"]


def test_only_counts_have_a_poisson_line(described: xr.Dataset, ax: Axes) -> None:
    plotting.plot_variance(described.assign_attrs(units="spike count residual"), ax)
    assert len(ax.lines) == 1 and ax.get_legend() is None
    assert ax.get_xlabel() == "mean\n(spike count residual)"


@pytest.mark.parametrize(("highest", "first_labels"), [(1.0, ["0.1", "0.2", "0.5"]), (500.0, ["0.1", "1", "10"])])
def test_logarithmic_ticks_are_plain_numbers(
    described: xr.Dataset, ax: Axes, highest: float, first_labels: list[str]
) -> None:
    described["mean_response"][:] = described["noise_variance"][:] = np.geomspace(0.1, highest, 10)
    plotting.plot_variance(described, ax)
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    shown = [label.get_text() for x, label in zip(ax.get_xticks(), ax.get_xticklabels()) if low <= x <= high]
    assert shown[:3] == first_labels


def test_every_pair_is_in_the_plane_of_correlations(described: xr.Dataset, ax: Axes) -> None:
    described["signal_correlation"][:2] = [1.5, np.nan]
    plotting.plot_signal_noise(described, ax)
    (hexagons,) = ax.collections
    assert hexagons.get_array().sum() == 43
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("signal correlation", "noise correlation")
    assert ax.get_title(loc="right") == "darker: more pairs"


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (lambda data, ax: plotting.plot_distribution(data, "reliability", ax), "reliability"),
        (plotting.plot_variance, "noise_variance"),
        (plotting.plot_signal_noise, "signal_correlation"),
        (plotting.plot_signal_noise, "noise_correlation"),
    ],
)
def test_what_is_refused_shows_its_reason(described: xr.Dataset, ax: Axes, draw, name: str) -> None:
    draw(refused(described, name, "expected counts, got residuals"), ax)
    assert texts(ax) == "n/a: expected counts, got residuals"
    assert ax.get_xlabel() and ax.get_ylabel()


def test_means_that_are_not_positive_are_said(described: xr.Dataset, ax: Axes) -> None:
    plotting.plot_variance(described.assign(mean_response=-described["mean_response"]), ax)
    assert texts(ax) == "n/a: no unit has a positive mean"


def test_the_figure_has_four_panels_at_column_width(described: xr.Dataset) -> None:
    drawing = plotting.plot_recording(described)
    drawing.draw_without_rendering()
    assert drawing.get_figwidth() == plotting.COLUMN_WIDTH
    assert [ax.get_xlabel() for ax in drawing.axes] == [
        "noise correlation", "mean (spike count)", "reliability", "signal correlation",
    ]  # fmt: skip


def test_what_is_missing_is_named(described: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="expected a Dataset with reliability; it has noise_correlation"):
        plotting.plot_recording(described.drop_vars("reliability"))
