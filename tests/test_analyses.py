"""The analyses run in their quick form and give what they are about."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "analyses"


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, FOLDER / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
@pytest.mark.slow
def test_the_published_order_holds_under_an_attack_that_knows_the_noise() -> None:
    """Preble et al. 2026: full > identity > none at ε = 0.1, trace 2, layer 1; here against 20 draws a gradient."""
    analysis = load("preble2026_pgd")
    results = analysis.compute(quick=True, seed=0, n_jobs=1)
    attacked = results["accuracy"].isel(condition=1).to_series()
    assert results["modification"].values[1] == "pgd"
    assert attacked["full"] > attacked["isotropic"] > attacked["none"]
    figure = analysis.plot(results)
    assert [ax.get_xlabel() for ax in figure.axes] == ["accuracy, clean images", "accuracy, PGD ε 0.1"]
