"""The figures of an evaluation draw its numbers, name what they show, and refuse what would draw something else."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from neurovar import plotting

CONDITIONS = [  # modification, strength, loss, gradient, draws, steps
    ("clean", 0, "", "", np.nan, np.nan),
    ("motion_blur", 3, "", "", np.nan, np.nan),
    ("apgd", 0.1, "dlr", "averaged", 20, 100),
    ("apgd", 0.1, "dlr", "averaged", 1, 100),
    ("apgd", 0.1, "dlr", "averaged", 5, 100),
    ("apgd", 0.1, "cross_entropy", "averaged", 1, 100),
    ("apgd", 0.05, "dlr", "averaged", 1, 100),
    ("pgd", 0.1, "cross_entropy", "averaged", 5, 200),
    ("pgd", 0.1, "cross_entropy", "averaged", 5, 40),
    ("pgd", 0.1, "cross_entropy", "twin", 1, 40),
    ("square", 0.1, "cross_entropy", "none", 5, np.nan),
]
NOISES = ["none", "full", "isotropic"]


@pytest.fixture
def ax() -> Axes:
    return plotting.figure()[1][0, 0]


@pytest.fixture
def summary() -> xr.Dataset:
    names, strengths, losses, gradients, draws, steps = zip(*CONDITIONS)
    accuracy = np.linspace(0.9, 0.1, len(NOISES) * len(CONDITIONS)).reshape(len(NOISES), -1)
    columns = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.04}
    kinds = [name if name == "clean" else "modification" if name == "motion_blur" else "attack" for name in names]
    coords = {"modification": names, "strength": strengths, "loss": losses, "gradient": gradients, "kind": kinds}
    coords |= {"n_draws": draws, "n_steps": steps, "norm": ["linf" if kind == "attack" else "" for kind in kinds]}
    return xr.Dataset(
        {name: (("noise", "condition"), values) for name, values in columns.items()},
        coords={name: ("condition", list(values)) for name, values in coords.items()}
        | {"noise": NOISES}
        | {"origin_of": ("noise", ["", "pgd", "motion_blur 3"]), "origin_epsilon": ("noise", [np.nan, 0.1, np.nan])},
    )


@pytest.fixture
def report() -> xr.Dataset:
    statuses = ["pass", "fail", "not run", "not applicable"]
    columns = {"status": statuses, "figure": [0.0123, 0.5, np.nan, np.nan], "bound": [0.02, 0.0, 0.1, np.nan]}
    return xr.Dataset(
        {name: ("check", values) for name, values in columns.items()},
        coords={"check": ["draws averaged", "accuracy reaches 0", "square", "source"]},
        attrs={"verdict": "withheld: " + "1 of 4 checks failed, 1 was not run. " * 3},
    )


def note(ax: Axes) -> str:
    return ax.get_title(loc="right")


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_convergence_is_drawn_in_order_of_draws(summary: xr.Dataset, ax: Axes) -> None:
    plotting.plot_convergence(summary, ax, against="n_draws", condition="apgd", strength=0.1, loss="dlr")
    assert [line.get_label() for line in ax.lines] == ["no noise", "full", "isotropic"]
    for line, values in zip(ax.lines, summary["accuracy"].values):
        assert list(line.get_xdata()) == [1, 5, 20]
        assert list(line.get_ydata()) == list(values[[3, 4, 2]])
    edges = {(x, round(y, 9)) for x, y in ax.collections[1].get_paths()[0].vertices if x == 20}
    assert edges == {(20, round(summary[name].values[1, 2], 9)) for name in ("low", "high")}
    assert note(ax) == "APGD DLR ε=0.1; bands: 95 % interval"
    assert ax.get_xlabel() == "noise draws per gradient, K" and ax.get_ylabel() == "accuracy (fraction correct)"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5", "20"]
    assert ax.get_xscale() == "log" and ax.get_ylim() == (0, 1)


def test_convergence_against_steps_leaves_out_other_gradients(summary: xr.Dataset, ax: Axes) -> None:
    plotting.plot_convergence(summary, ax, against="n_steps", condition="pgd", strength=0.1)
    assert list(ax.lines[1].get_xdata()) == [40, 200]
    assert list(ax.lines[1].get_ydata()) == list(summary["accuracy"].values[1, [8, 7]])
    assert note(ax) == "PGD CE ε=0.1; bands: 95 % interval"
    assert ax.get_xlabel() == "steps of the attack"


def test_convergence_needs_conditions_that_differ_in_effort_only(summary: xr.Dataset, ax: Axes) -> None:
    options = {"against": "n_draws", "condition": "apgd", "strength": 0.1}
    with pytest.raises(ValueError, match=r"expected at least two conditions of apgd cross_entropy ε=0.1, got 1"):
        plotting.plot_convergence(summary, ax, loss="cross_entropy", **options)
    with pytest.raises(ValueError, match=r"conditions of apgd ε=0.1 that differ in n_draws only, .* differ in loss"):
        plotting.plot_convergence(summary, ax, **options)
    others = summary.assign_coords(n_steps=summary["n_steps"].where(summary["n_draws"] != 20, 50))
    with pytest.raises(
        ValueError, match=r"apgd dlr ε=0\.1 that differ in n_draws only, got some that differ in n_steps"
    ):
        plotting.plot_convergence(others, ax, loss="dlr", **options)
    twice = xr.concat([summary, summary.isel(condition=[2])], "condition")
    with pytest.raises(ValueError, match="got some that differ in nothing, n_draws neither"):
        plotting.plot_convergence(twice, ax, loss="dlr", **options)
    with pytest.raises(ValueError, match="expected a measure of effort among n_draws, n_steps, got 'step'"):
        plotting.plot_convergence(summary, ax, against="step", condition="apgd", strength=0.1)
    with pytest.raises(ValueError, match="expected a Dataset with gradient;"):
        plotting.plot_convergence(summary.drop_vars("gradient"), ax, **options)


def test_accuracy_against_strength_wants_one_condition_at_each(summary: xr.Dataset, ax: Axes) -> None:
    with pytest.raises(ValueError, match="expected one condition of apgd at each strength, got several: select those"):
        plotting.plot_accuracy(summary, ax, condition="apgd")
    plotting.plot_accuracy(summary.isel(condition=[0, 2, 6]), ax, condition="apgd")
    assert list(ax.lines[0].get_xdata()) == [0, 0.05, 0.1]
    assert ax.get_xlabel() == "APGD ε (L∞, pixels 0–1)"
    measures = summary.expand_dims(measure=["expected", "worst of 10"])
    with pytest.raises(ValueError, match=r"expected accuracy \(noise, condition\), got \('measure', 'noise', 'cond"):
        plotting.plot_accuracy(measures.isel(condition=[0, 2]), ax, condition="apgd")


def test_an_attack_in_l2_says_so(summary: xr.Dataset, ax: Axes) -> None:
    l2 = summary.isel(condition=[0, 2]).assign_coords(norm=("condition", ["", "l2"]))
    plotting.plot_accuracy(l2, ax, condition="apgd")
    assert ax.get_xlabel() == "APGD ε (L2, pixels 0–1)"
    plotting.plot_noise_by_test(l2, ax)
    assert ax.get_xticklabels()[1].get_text() == "APGD DLR ε=0.1 L2"


def test_the_heat_map_writes_every_accuracy_and_outlines_what_a_noise_was_made_from(
    summary: xr.Dataset, ax: Axes
) -> None:
    shown = summary.isel(condition=[0, 1, 2, 7, 9, 10])
    plotting.plot_noise_by_test(shown, ax)
    np.testing.assert_array_equal(ax.images[0].get_array(), shown["accuracy"])
    assert texts(ax) == [f"{value:.2f}" for value in shown["accuracy"].values.ravel()]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [
        "clean images",
        "motion blur 3",
        "APGD DLR ε=0.1",
        "PGD CE ε=0.1",
        "PGD CE ε=0.1 twin",
        "Square CE ε=0.1",
    ]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["no noise", "full", "isotropic"]
    corners = [(round(patch.get_x() + 0.47), round(patch.get_y() + 0.45)) for patch in ax.patches]
    assert corners == [(3, 1), (4, 1), (1, 2)]
    assert note(ax) == "fraction correct; outlined: what the noise was made from"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tested under", "noise")


def test_the_heat_map_can_be_read_in_any_shade(summary: xr.Dataset, ax: Axes) -> None:
    """Contrast of the text with its cell (WCAG 2.1): at least 3."""
    plotting.plot_noise_by_test(summary, ax)
    image = ax.images[0]
    cells = image.cmap(image.norm(image.get_array()))[..., :3].reshape(-1, 3)
    for text, cell in zip(ax.texts, cells):
        light, dark = sorted((luminance(to_rgb(text.get_color())), luminance(cell)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3


def luminance(rgb: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_the_heat_map_of_what_could_not_be_run(summary: xr.Dataset, ax: Axes) -> None:
    summary["accuracy"][1, 0] = np.nan
    plotting.plot_noise_by_test(summary.drop_vars("origin_of"), ax)
    assert texts(ax)[summary.sizes["condition"]] == "n/a"
    assert not ax.patches


@pytest.mark.parametrize(
    ("of", "epsilon", "outlined"), [("pgd", 0.1, 1), ("pgd", 0.15, 0), ("pgd", np.nan, 0), ("apgd", 0.1, 0)]
)
def test_only_the_very_same_test_is_outlined(
    summary: xr.Dataset, ax: Axes, of: str, epsilon: float, outlined: int
) -> None:
    coords = {"origin_of": ("noise", [of]), "origin_epsilon": ("noise", [epsilon])}
    plotting.plot_noise_by_test(summary.isel(condition=[0, 7], noise=[1]).assign_coords(coords), ax)
    assert len(ax.patches) == outlined


def test_the_heat_map_needs_something_to_draw(summary: xr.Dataset, ax: Axes) -> None:
    with pytest.raises(ValueError, match=r"expected at least one noise and one condition, got .*'condition': 0"):
        plotting.plot_noise_by_test(summary.isel(condition=[]), ax)
    with pytest.raises(ValueError, match="expected a Dataset with strength;"):
        plotting.plot_noise_by_test(summary.drop_vars("strength"), ax)


def test_every_check_stands_with_its_figure_under_the_verdict(report: xr.Dataset, ax: Axes) -> None:
    plotting.plot_honesty(report, ax)
    said = texts(ax)
    n_lines = said.index("") if "" in said else 0
    assert said[0] == "Verdict: withheld"
    assert " ".join(said[1:n_lines]) == report.attrs["verdict"].removeprefix("withheld: ").strip()
    assert all(len(line) <= plotting.VERDICT_COLUMNS for line in said[:n_lines])
    rows = [said[start : start + 4] for start in range(n_lines, len(said), 4)]
    assert rows == [
        ["", "check", "figure", "bound"],
        ["pass", "draws averaged", "0.0123", "0.02"],
        ["fail", "accuracy reaches 0", "0.5", "0"],
        ["not run", "square", "–", "0.1"],
        ["not applicable", "source", "–", "–"],
    ]
    heights = [text.get_position()[1] for text in ax.texts]
    assert heights == sorted(heights) and ax.yaxis_inverted()


def test_a_failed_check_is_told_without_colours_too(report: xr.Dataset, ax: Axes) -> None:
    plotting.plot_honesty(report, ax)
    marks = [
        (line.get_marker(), to_hex(line.get_markerfacecolor())) for line in ax.lines if line.get_marker() != "None"
    ]
    assert len({marker if marker != "o" else color for marker, color in marks}) == 4
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert bold == ["Verdict: withheld", "fail"]


def test_a_report_without_a_verdict_or_with_another_status_is_refused(report: xr.Dataset, ax: Axes) -> None:
    with pytest.raises(ValueError, match=r"expected a Dataset with attrs\['verdict'\]"):
        plotting.plot_honesty(xr.Dataset(report.variables), ax)
    with pytest.raises(ValueError, match="expected a status among pass, fail, not run, not applicable, got 'maybe'"):
        plotting.plot_honesty(report.assign(status=("check", ["maybe"] * 4)), ax)


def test_a_long_report_stays_within_its_figure() -> None:
    n = 24
    columns = {"status": ["fail"] * n, "figure": [0.0123] * n, "bound": [-0.012] * n}
    report = xr.Dataset(
        {name: ("check", values) for name, values in columns.items()},
        coords={"check": ["transfer from an independent network"] * n},
        attrs={"verdict": "withheld: " + "many checks failed, others were not run. " * 8},
    )
    drawing, axes = plotting.figure(height=0.165 * (n + 10))
    plotting.plot_honesty(report, axes[0, 0])
    drawing.draw_without_rendering()
    frame = drawing.bbox
    boxes = [text.get_window_extent() for text in axes[0, 0].texts if text.get_text()]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    for first, second in pairwise(boxes):
        assert not (first.shrunk(0.98, 0.7).overlaps(second.shrunk(0.98, 0.7)))


def test_many_noises_look_different(summary: xr.Dataset, ax: Axes) -> None:
    many = xr.concat([summary.isel(noise=1)] * 9, "noise").assign_coords(noise=[f"noise {i}" for i in range(9)])
    plotting.plot_convergence(many, ax, against="n_draws", condition="apgd", strength=0.1, loss="dlr")
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines}) == 9
