"""The old versions that Brain-Score pins are the ones in use, and it imports beside this torch."""

from importlib.metadata import version
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(find_spec("brainscore_vision") is None, reason="brainscore_vision is not installed")


@pytest.mark.parametrize(("package", "pin"), [("numpy", "1.26."), ("xarray", "2022.3."), ("pandas", "2.3.")])
def test_the_old_versions_are_installed(package: str, pin: str) -> None:
    assert version(package).startswith(pin)


def test_brainscore_imports() -> None:
    import brainscore_vision

    assert callable(brainscore_vision.load_benchmark)


def test_torchvision_works_beside_this_torch() -> None:
    import torch
    from torchvision import models

    logits = models.resnet18(weights=None).eval()(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 1000)
