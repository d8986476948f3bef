"""What is drawn is what was given, and each figure says what it shows."""

from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from neurovar import plotting
from neurovar.plotting._accuracy import noise_styles
from neurovar.plotting._systems import _system_styles

SYSTEMS = ["V4", "_blocks.4", "_conv_head"]
NOISES = ["none", "isotropic", "v4", "v4_diagonal", "v4_rotated", "pgd", "pgd_diagonal", "pgd_rotated"]


def controls_of(kinds: list[str], of: list[str]) -> dict[str, tuple[str, list[str]]]:
    """The coordinates that say which noise is a control, and of which."""
    return {"control": ("noise", kinds), "control_of": ("noise", of)}


@pytest.fixture
def ax() -> Axes:
    return plotting.figure()[1][0, 0]


@pytest.fixture
def comparison() -> xr.Dataset:
    estimate = np.array([[0.03, 0.2, 0.1], [0.9, np.nan, np.nan]])
    spectrum = np.array([[4.0, 2.0, -1.0, 0.5], [10.0, 5.0, 2.0, 1.0], [-1.0, 2.0, 1.0, 1.0]])
    return xr.Dataset(
        {
            "estimate": (("statistic", "system"), estimate),
            "low": (("statistic", "system"), estimate - 0.01),
            "high": (("statistic", "system"), estimate + 0.02),
            "spectrum": (("system", "rank"), spectrum),
        },
        coords={
            "statistic": ["noise_correlation", "fano_factor"],
            "axis_label": ("statistic", ["mean noise correlation", "Fano factor"]),
            "system": SYSTEMS,
            "rank": np.arange(1, 5),
        },
        attrs={"exponent_ranks": np.array([2, 4])},
    )


@pytest.fixture
def summary() -> xr.Dataset:
    """Strengths out of order, so that a line drawn in the order given would go back on itself."""
    accuracy = np.linspace(0.9, 0.1, len(NOISES) * 5).reshape(len(NOISES), 5)
    names = ["clean", "pgd", "pgd", "motion_blur", "motion_blur"]
    return xr.Dataset(
        {name: (("noise", "condition"), accuracy + shift) for name, shift in (("accuracy", 0), ("low", -0.05))}
        | {"high": (("noise", "condition"), accuracy + 0.04)},
        coords={
            "noise": NOISES,
            "modification": ("condition", names),
            "strength": ("condition", [0.0, 0.1, 0.05, 3.0, 5.0]),
            **controls_of(
                ["", "isotropic", "", "diagonal", "rotated", "", "diagonal", "rotated"],
                ["", "", "", "v4", "v4", "", "pgd", "pgd"],
            ),
        },
    )


@pytest.fixture
def rule_bins() -> xr.Dataset:
    return xr.Dataset(
        {
            "signal_correlation": ("bin", [-0.1, 0.2, 0.5]),
            "noise_correlation": ("bin", [0.0, 0.03, 0.05]),
            "standard_error": ("bin", [0.01, 0.02, np.nan]),
        },
        attrs={"intercept": 0.01, "slope": 0.1},
    )


def segments(ax: Axes) -> list[np.ndarray]:
    """The interval bars on the Axes, each as its two end points (x, y)."""
    return [np.asarray(segment) for bars in ax.collections for segment in bars.get_segments()]


def note(ax: Axes) -> str:
    return ax.get_title(loc="right")


def test_statistic_draws_each_estimate_with_its_interval(comparison: xr.Dataset, ax: Axes) -> None:
    plotting.plot_statistic(comparison, "noise_correlation", ax)
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines]
    assert points == [(0, 0.03), (1, 0.2), (2, 0.1)]
    expected = [[[x, y - 0.01], [x, y + 0.02]] for x, y in points]
    np.testing.assert_allclose(segments(ax), expected)
    assert [label.get_text() for label in ax.get_xticklabels()] == SYSTEMS
    assert ax.get_ylabel() == "mean noise correlation"
    assert note(ax) == "bars: 95 % interval"


def test_undefined_statistics_say_so(comparison: xr.Dataset, ax: Axes) -> None:
    plotting.plot_statistic(comparison, "fano_factor", ax)
    assert len(ax.lines) == len(segments(ax)) == 1
    assert [(text.get_position()[0], text.get_text()) for text in ax.texts] == [(1, "n/a"), (2, "n/a")]
    assert ax.get_ylabel() == "Fano factor"


def test_an_estimate_without_an_interval_is_a_bare_point(comparison: xr.Dataset, ax: Axes) -> None:
    comparison["low"][:] = np.nan
    plotting.plot_statistic(comparison, "noise_correlation", ax)
    assert len(ax.lines) == 3
    assert segments(ax) == []


def test_an_interval_may_miss_its_estimate(comparison: xr.Dataset, ax: Axes) -> None:
    comparison["low"][0, 0], comparison["high"][0, 0] = 0.05, 0.06
    plotting.plot_statistic(comparison, "noise_correlation", ax)
    np.testing.assert_allclose(segments(ax)[0], [[0, 0.05], [0, 0.06]])


@pytest.mark.parametrize(("names", "angle"), [(["V4", "a", "b"], 0), (["V4", "a" * 20, "b" * 20], 40)])
def test_long_names_are_turned(comparison: xr.Dataset, ax: Axes, names: list[str], angle: float) -> None:
    plotting.plot_statistic(comparison.assign_coords(system=names), "noise_correlation", ax)
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {angle}


def test_spectra_are_normalised_by_the_first_rank_and_positive(comparison: xr.Dataset, ax: Axes) -> None:
    plotting.plot_spectra(comparison, ax)
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines]
    assert drawn == [([1, 2, 4], [1, 0.5, 0.125]), ([1, 2, 3, 4], [1, 0.5, 0.2, 0.1]), ([], [])]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rank n", "signal variance λₙ/λ₁")
    shaded = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((2, 4))


def test_spectra_name_layers_that_begin_with_an_underscore(comparison: xr.Dataset, ax: Axes) -> None:
    plotting.plot_spectra(comparison, ax)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["V4", "_blocks.4", "_conv_head (n/a)", "fitted ranks 2–4"]


def test_a_system_has_one_colour_in_every_figure(comparison: xr.Dataset) -> None:
    axes = plotting.figure(1, 2)[1][0]
    plotting.plot_statistic(comparison, "noise_correlation", axes[0])
    plotting.plot_spectra(comparison, axes[1])
    points, lines = ([line.get_color() for line in ax.lines] for ax in axes)
    assert points == lines
    assert len(set(points)) == 3


def test_more_systems_than_colours_still_look_different() -> None:
    looks = _system_styles(f"layer{i}" for i in range(19))
    assert len({(look["color"], look["linestyle"], look["marker"]) for look in looks.values()}) == 19


def test_correlation_matrix_is_centred_at_zero(ax: Axes) -> None:
    values = np.array([[1.0, 0.1, np.nan], [0.1, 1.0, -0.3], [np.nan, -0.3, 1.0]])
    plotting.plot_correlation_matrix(xr.DataArray(values, dims=("unit", "other_unit"), name="noise_correlation"), ax)
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array().filled(np.nan), values)
    assert image.get_clim() == (-0.3, 0.3)
    assert image.colorbar.ax.get_ylabel() == "noise correlation"
    assert image.colorbar.extend == "max"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("unit", "unit")


def test_correlation_matrix_of_independent_units(ax: Axes) -> None:
    plotting.plot_correlation_matrix(xr.DataArray(np.eye(3), dims=("unit", "other_unit")), ax)
    assert ax.images[0].get_clim() == (-1, 1)
    assert ax.images[0].colorbar.extend == "neither"


def test_correlation_matrix_must_be_square(ax: Axes) -> None:
    matrix = xr.DataArray(np.zeros((2, 3)), dims=("unit", "other_unit"))
    with pytest.raises(ValueError, match=r"expected a square matrix .*got dims \{'unit': 2, 'other_unit': 3\}"):
        plotting.plot_correlation_matrix(matrix, ax)


def test_signal_rule_draws_bins_and_line(rule_bins: xr.Dataset, ax: Axes) -> None:
    plotting.plot_signal_rule(rule_bins, ax)
    line, points = ax.lines[1:]
    np.testing.assert_allclose(line.get_xydata(), [[-0.1, 0.0], [0.5, 0.06]], atol=1e-12)
    np.testing.assert_array_equal(points.get_xdata(), rule_bins["signal_correlation"])
    np.testing.assert_array_equal(points.get_ydata(), rule_bins["noise_correlation"])
    np.testing.assert_allclose(segments(ax), [[[-0.1, -0.01], [-0.1, 0.01]], [[0.2, 0.01], [0.2, 0.05]]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("signal correlation", "noise correlation")
    assert ax.get_legend().get_texts()[0].get_text() == "r = 0.010 + 0.100 · signal"
    assert note(ax) == "bars: ± 1 standard error"


def test_signal_rule_writes_a_falling_line_with_a_minus(rule_bins: xr.Dataset, ax: Axes) -> None:
    plotting.plot_signal_rule(rule_bins.assign_attrs(slope=-0.2), ax)
    assert ax.get_legend().get_texts()[0].get_text() == "r = 0.010 − 0.200 · signal"


def test_accuracy_is_drawn_in_order_of_strength_from_clean(summary: xr.Dataset, ax: Axes) -> None:
    plotting.plot_accuracy(summary, ax, condition="pgd")
    assert [line.get_label() for line in ax.lines][:4] == ["no noise", "isotropic", "V4", "V4, diagonal"]
    for line, values in zip(ax.lines, summary["accuracy"].values):
        assert list(line.get_xdata()) == [0, 0.05, 0.1]
        assert list(line.get_ydata()) == list(values[[0, 2, 1]])
    edges = ax.collections[0].get_paths()[0].vertices
    band = {(x, round(y, 6)) for x, y in edges if x == 0.05}
    assert band == {(0.05, round(summary[name].values[0, 2], 6)) for name in ("low", "high")}
    assert ax.get_xlabel() == "PGD ε (L∞, pixels 0–1)"
    assert ax.get_ylabel() == "accuracy (fraction correct)"
    assert note(ax) == "bands: 95 % interval"


def test_accuracy_against_a_modification(summary: xr.Dataset, ax: Axes) -> None:
    plotting.plot_accuracy(summary.isel(condition=slice(1, None)), ax, condition="motion_blur")
    assert list(ax.lines[0].get_xdata()) == [3, 5]
    assert ax.get_xlabel() == "motion blur strength"


def test_clean_does_not_stand_beside_a_strength_of_zero(summary: xr.Dataset, ax: Axes) -> None:
    strength = summary["strength"].values.copy()
    strength[1] = 0.0
    plotting.plot_accuracy(summary.assign_coords(strength=("condition", strength)), ax, condition="pgd")
    assert list(ax.lines[0].get_xdata()) == [0, 0.05]
    assert ax.lines[0].get_ydata()[0] == summary["accuracy"].values[0, 1]


def test_each_noise_has_its_own_look_everywhere(summary: xr.Dataset) -> None:
    axes = plotting.figure(1, 2)[1][0]
    plotting.plot_accuracy(summary, axes[0], condition="pgd")
    plotting.plot_accuracy_bars(summary.isel(noise=slice(2, None)), axes[1], condition="clean")
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes[0].lines}
    assert len(looks) == len(NOISES)
    assert [line.get_color() for line in axes[1].lines] == [line.get_color() for line in axes[0].lines][2:]


def test_controls_share_the_colour_of_their_family_and_new_families_get_one() -> None:
    names = ["v4", "turned", "v1", "v1_diagonal", "my_rotated_thing"]
    coords = {"noise": names, **controls_of(["", "rotated", "", "diagonal", ""], ["", "v4", "", "v1", ""])}
    looks = noise_styles(xr.Dataset(coords=coords))
    assert list(looks) == ["V4", "V4, rotated", "v1", "v1, diagonal", "my rotated thing"]
    colors = {name: look["color"] for name, look in looks.items()}
    assert colors["V4"] == colors["V4, rotated"]
    assert colors["v1"] == colors["v1, diagonal"]
    assert len(set(colors.values())) == 3
    twice = xr.Dataset(coords={"noise": ["a", "b"], **controls_of(["rotated"] * 2, ["v4"] * 2)})
    assert list(noise_styles(twice)) == ["a", "b"]
    assert list(noise_styles(xr.Dataset(coords={"noise": ["v4_rotated"]}))) == ["v4 rotated"]


@pytest.mark.parametrize(
    ("condition", "strength", "column", "label"),
    [
        ("clean", 0.0, 0, "accuracy, clean images"),
        ("pgd", 0.1, 1, "accuracy, PGD ε=0.1"),
        ("motion_blur", 5, 4, "accuracy, motion blur 5"),
    ],
)
def test_accuracy_bars_draw_one_condition(
    summary: xr.Dataset, ax: Axes, condition: str, strength: float, column: int, label: str
) -> None:
    plotting.plot_accuracy_bars(summary, ax, condition=condition, strength=strength)
    one = summary.isel(condition=column)
    assert [line.get_xdata()[0] for line in ax.lines] == list(one["accuracy"].values)
    expected = [[[low, y], [high, y]] for y, (low, high) in enumerate(zip(one["low"].values, one["high"].values))]
    np.testing.assert_allclose(segments(ax), expected)
    assert ax.get_yticklabels()[-1].get_text() == "PGD, rotated"
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == label
    assert note(ax) == "bars: 95 % interval"


def test_legend_below_names_each_line_once(summary: xr.Dataset) -> None:
    drawing, axes = plotting.figure(1, 2)
    for ax, condition in zip(axes[0], ("pgd", "motion_blur")):
        plotting.plot_accuracy(summary, ax, condition=condition)
    plotting.legend_below(drawing)
    names = [text.get_text() for text in drawing.legends[0].get_texts()]
    assert len(names) == len(NOISES)
    assert names[:3] == ["no noise", "isotropic", "V4"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda data, ax: plotting.plot_statistic(data, "exponent", ax),
         "expected a statistic among noise_correlation, fano_factor, got 'exponent'"),
        (lambda data, ax: plotting.plot_statistic(data.drop_vars("low"), "fano_factor", ax),
         "expected a Dataset with low; it has .*estimate"),
        (lambda data, ax: plotting.plot_spectra(data.assign_attrs(exponent_ranks=0).drop_vars("rank"), ax),
         "expected a Dataset with rank; it has"),
        (lambda data, ax: plotting.plot_spectra(xr.Dataset(), ax),
         r"expected a Dataset with spectrum, system, rank, attrs\['exponent_ranks'\]; it has nothing"),
        (lambda data, ax: plotting.plot_signal_rule(data, ax), r"expected .*standard_error, attrs\['intercept'\]"),
        (lambda data, ax: plotting.plot_accuracy(data, ax, condition="pgd"), "expected .*noise, modification"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    comparison: xr.Dataset, ax: Axes, draw: Callable[[xr.Dataset, Axes], None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(comparison, ax)


def test_unknown_conditions_and_strengths_are_named(summary: xr.Dataset, ax: Axes) -> None:
    with pytest.raises(ValueError, match="expected a condition among clean, pgd, motion_blur, got 'snow'"):
        plotting.plot_accuracy(summary, ax, condition="snow")
    with pytest.raises(ValueError, match=r"expected a strength of pgd among 0, 0.05, 0.1, got 0.2"):
        plotting.plot_accuracy_bars(summary, ax, condition="pgd", strength=0.2)


def test_style_ends_with_its_context() -> None:
    before = dict(matplotlib.rcParams)
    with plotting.style():
        assert matplotlib.rcParams["font.size"] == 8
    plotting.figure()
    assert dict(matplotlib.rcParams) == before


def test_figures_have_the_style_outside_its_context_too(comparison: xr.Dataset, ax: Axes) -> None:
    plotting.plot_statistic(comparison, "noise_correlation", ax)
    assert ax.figure.get_figwidth() == plotting.COLUMN_WIDTH
    assert ax.yaxis.label.get_size() == 8
    assert to_hex(ax.lines[0].get_color()) == "#d55e00"
    assert not ax.spines["top"].get_visible()


def test_names_are_not_read_as_formulas(comparison: xr.Dataset, ax: Axes) -> None:
    plotting.plot_statistic(comparison.assign_coords(system=["V4", r"$\bad{$", "b"]), "noise_correlation", ax)
    plotting.plot_spectra(comparison.assign_coords(system=["V4", r"$\bad{$", "b"]), ax)
    ax.figure.draw_without_rendering()
