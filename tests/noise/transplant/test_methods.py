"""What all methods of transplanting promise, whatever they learn of a source."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import reference
import torch
import xarray as xr

from neurovar.covariance import Diagonal
from neurovar.noise import METHODS, Ridge, Spectrum, TransplantMethod

OPTIONS: dict[str, dict[str, Any]] = {
    "spectrum": {"axes": "signal"},
    "readout": {"regression": Ridge(), "least_goodness": 0.001},
    "signal_rule": {},
    "assignment": {"n_factors": 1},
    "gain": {},
}
PAIRED = ("readout", "assignment")
"""Methods that are fitted to both systems."""


@pytest.fixture(scope="module")
def target() -> xr.DataArray:
    """Noise-free rectified responses in single precision."""
    drive = np.random.default_rng(5).normal(size=(60, 8)) @ np.random.default_rng(6).normal(size=(8, 30))
    return reference.responses(np.maximum(drive, 0)[:, None].astype(np.float32), units="activation")


@pytest.fixture(scope="module")
def source(target: xr.DataArray) -> xr.DataArray:
    """Poisson counts whose means are seen in the target, too."""
    rate = np.exp(target.values[:, :, :8].astype(np.float64) * 0.3 + 1)
    counts = np.random.default_rng(0).poisson(rate, size=(60, 12, 8)).astype(float)
    return reference.responses(counts, units="spike count")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> type[TransplantMethod]:
    return METHODS[request.param]


def fitted(method: type[TransplantMethod], source: xr.DataArray, target: xr.DataArray, seed: int = 0) -> Any:
    options = {name: value for name, value in OPTIONS[method.name].items() if name != "axes"}
    if method.name in PAIRED:
        return method.fit(source, target, rng=seed, **options)
    return method.fit(source, **options)


def placed(value: Any, target: xr.DataArray) -> Any:
    return value.onto(target, **({"axes": "signal"} if isinstance(value, Spectrum) else {}))


def test_one_call_is_a_fit_and_what_comes_of_it(
    method: type[TransplantMethod], source: xr.DataArray, target: xr.DataArray
) -> None:
    noise = placed(fitted(method, source, target), target)
    assert (noise.n, noise.dtype) == (30, torch.float32) and noise.trace() > 0
    again = method.between(source, target, rng=0, **OPTIONS[method.name])
    assert torch.equal(noise.to_dense(), again.to_dense())


def test_what_was_fitted_is_frozen_and_comparable(
    method: type[TransplantMethod], source: xr.DataArray, target: xr.DataArray
) -> None:
    value = fitted(method, source, target)
    assert value == fitted(method, source, target)
    assert value != fitted(method, source.isel(stimulus=slice(40)), target)
    assert value != "a value of another type"
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, None)


def test_options_of_another_method_are_refused(
    method: type[TransplantMethod], source: xr.DataArray, target: xr.DataArray
) -> None:
    with pytest.raises(ValueError, match=f"expected options that '{method.name}' has .*, got n_bands, levels"):
        method.between(source, target, rng=0, **OPTIONS[method.name], n_bands=3, levels=2)
    for option in method.required:
        others = {name: value for name, value in OPTIONS[method.name].items() if name != option}
        with pytest.raises(ValueError, match=f"expected the options {option} for '{method.name}', got none"):
            method.between(source, target, rng=0, **others)


def test_a_target_that_is_none_is_refused(
    method: type[TransplantMethod], source: xr.DataArray, target: xr.DataArray
) -> None:
    value = fitted(method, source, target)
    with pytest.raises(ValueError, match="expected dims"):
        placed(value, target.rename(unit="neuroid"))
    if method.name in PAIRED:
        with pytest.raises(ValueError, match=r"expected a target with the 30 units that .* got 29"):
            placed(value, target.isel(unit=slice(29)))
    else:
        assert placed(value, target.isel(unit=slice(29))).n == 29


@pytest.fixture
def constant() -> Iterator[type[TransplantMethod]]:
    @dataclass(frozen=True, eq=False)
    class Constant(TransplantMethod):
        name: ClassVar[str] = "constant"
        variance: float

        @classmethod
        def fit(cls, source: xr.DataArray) -> Self:
            return cls(float(source.var("repeat").mean()))

        def onto(self, target: xr.DataArray) -> Diagonal:
            return self.variance * Diagonal.isotropic(target.sizes["unit"])

        @classmethod
        def _between(cls, source: xr.DataArray, target: xr.DataArray, rng: object) -> Diagonal:
            return cls.fit(source).onto(target)

    yield Constant
    del METHODS["constant"]


def test_a_method_of_one_s_own_is_known_by_its_name(
    constant: type[TransplantMethod], source: xr.DataArray, target: xr.DataArray
) -> None:
    assert METHODS["constant"] is constant
    noise = METHODS["constant"].between(source, target, rng=0)
    assert noise.trace() == pytest.approx(30 * float(source.var("repeat").mean()), rel=1e-5)
