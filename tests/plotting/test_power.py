"""The figures of a power analysis draw its numbers and say its answer."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from neurovar import plotting

REPEATS = [3, 10, 40]


@pytest.fixture
def ax() -> Axes:
    return plotting.figure()[1][0, 0]


@pytest.fixture
def result() -> xr.Dataset:
    columns = {
        "standard_error": [0.3, 0.2, 0.1],
        "standard_error_error": [0.03, 0.02, 0.01],
        "bias": [-0.2, -0.05, 0.01],
        "bias_error": [0.02, 0.02, 0.02],
        "power": [0.2, 0.6, 0.9],
        "power_error": [0.02, 0.05, 0.01],
    }
    attrs = {
        "precision": 0.15,
        "repeats_for_precision": 40.0,
        "difference": 0.25,
        "alpha": 0.05,
        "power_wanted": 0.75,
        "repeats_for_power": np.nan,
    }
    variables = {name: ("n_repeats", values) for name, values in columns.items()}
    return xr.Dataset(variables, coords={"n_repeats": REPEATS}, attrs=attrs)


def bars(ax: Axes) -> list[np.ndarray]:
    return [np.asarray(segment) for lines in ax.collections for segment in lines.get_segments()]


def test_errors_and_biases_against_repeats(result: xr.Dataset, ax: Axes) -> None:
    plotting.plot_power(result, ax)
    error, bias, unsure, *_ = ax.lines
    np.testing.assert_array_equal(error.get_xdata(), REPEATS)
    np.testing.assert_array_equal(error.get_ydata(), [0.3, 0.2, 0.1])
    np.testing.assert_array_equal(bias.get_ydata(), [0.2, 0.05, 0.01])
    assert unsure.get_xdata().tolist() == [40] and to_hex(unsure.get_markerfacecolor()) == "#ffffff"
    np.testing.assert_allclose(bars(ax)[0], [[3, 0.27], [3, 0.33]])
    np.testing.assert_allclose(bars(ax)[3], [[3, 0.18], [3, 0.22]])
    assert ax.lines[-1].get_ydata() == [0.15, 0.15]
    assert ax.get_title(loc="right") == "40 repeats for ± 0.15"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["standard error", "|bias|"]
    assert ax.get_xscale() == "log" and ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 0.33 * 1.3
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["3", "10", "40"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("repeats of each stimulus", "error of the statistic")


def test_without_a_precision_there_is_no_line(result: xr.Dataset, ax: Axes) -> None:
    del result.attrs["precision"]
    plotting.plot_power(result, ax)
    assert ax.get_title(loc="right") == "" and len(ax.lines) == 5


def test_power_against_repeats(result: xr.Dataset, ax: Axes) -> None:
    plotting.plot_detection(result, ax)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), REPEATS)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.2, 0.6, 0.9])
    np.testing.assert_allclose(bars(ax)[1], [[10, 0.55], [10, 0.65]])
    assert ax.lines[1].get_ydata() == [0.75, 0.75]
    assert ax.get_title(loc="right") == "more repeats than tried for a difference of 0.25"
    assert ax.get_ylabel() == "power (α = 0.05)"
    plotting.plot_detection(result.assign_attrs(repeats_for_power=10.0), ax)
    assert ax.get_title(loc="right") == "10 repeats for a difference of 0.25"


@pytest.mark.parametrize("missing", ["standard_error", "standard_error_error", "bias", "bias_error"])
def test_a_missing_error_is_named(result: xr.Dataset, ax: Axes, missing: str) -> None:
    with pytest.raises(ValueError, match=f"expected a Dataset with {missing};"):
        plotting.plot_power(result.drop_vars(missing), ax)


def test_a_result_without_a_difference_has_no_power(result: xr.Dataset, ax: Axes) -> None:
    asked_for_precision = result.drop_vars(["power", "power_error"])
    del asked_for_precision.attrs["difference"]
    with pytest.raises(ValueError, match=r"expected a Dataset with power, power_error, attrs\['difference'\]"):
        plotting.plot_detection(asked_for_precision, ax)
