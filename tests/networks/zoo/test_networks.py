"""Networks by name: what is there is opened without a download, what is not is named with what is near it."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from neurovar import networks
from neurovar.networks import Layer, iterate, layers, small_network


@pytest.fixture(scope="module")
def torchvision() -> Any:
    return pytest.importorskip("torchvision.models", reason="needs torchvision")


@pytest.fixture(scope="module")
def timm() -> Any:
    return pytest.importorskip("timm", reason="needs timm")


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own, `own_networks`."""
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n"
        "ready = nn.Linear(2, 3)\n"
        "number = 3\n"
        "def make():\n    return nn.Sequential(nn.Linear(2, 3), nn.Dropout())\n"
        "def make_none():\n    return None\n"
        "def fails():\n    raise RuntimeError('no data')\n"
    )
    (tmp_path / "broken_networks.py").write_text("import torch\nraise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    return tmp_path


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_the_small_network() -> None:
    assert same(networks.load("small"), small_network(rng=0))
    assert same(networks.load("small", rng=3), small_network(rng=3))
    assert not networks.load("small").training
    assert networks.input_shape("small", networks.load("small")) == (1, 28, 28)


def test_efficientnet() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    network = networks.load("efficientnet_lite0")
    assert networks.input_shape("efficientnet_lite0", network) == (3, 224, 224)
    assert layers(network, (3, 64, 64)).set_index("layer").loc["network._fc", "units"] == 1000


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "vit_b_32"])
def test_torchvision(torchvision: Any, name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        expected = getattr(torchvision, name)(weights=None)
    state = torch.get_rng_state()
    network = networks.load(f"torchvision:{name}", rng=2)
    assert same(network, expected)
    assert not network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert networks.input_shape(f"torchvision:{name}", network) == (3, 224, 224)


def test_torchvision_downloads_no_backbone(torchvision: Any) -> None:
    assert networks.load("torchvision:lraspp_mobilenet_v3_large").training is False


def test_the_layers_of_a_resnet(torchvision: Any) -> None:
    listed = layers(networks.load("torchvision:resnet18"), (3, 64, 64)).set_index("layer")
    assert listed.loc["layer1", "shape"] == (64, 16, 16)
    assert listed.loc["fc", "shape"] == (1000,)
    assert listed.loc["layer1.0.relu", "fires"] == 2
    assert listed.loc["layer1.0.relu", "note"].startswith("fires 2 times")


def test_the_tokens_of_a_vision_transformer_are_recorded(torchvision: Any) -> None:
    network = networks.load("torchvision:vit_b_32")
    listed = layers(network, (3, 224, 224)).set_index("layer")
    assert listed.loc["encoder.ln", "shape"] == (50, 768)
    assert listed.loc["encoder.layers.encoder_layer_0.self_attention", "note"].startswith("gives tuple")
    (batch,) = iterate(network, [torch.zeros(2, 3, 224, 224)], layers=[Layer("encoder.ln", pool_space=True)], rng=0)
    assert batch.activations["encoder.ln"].shape == (2, 1, 768)


def test_timm(timm: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = timm.create_model("resnet18", pretrained=False)
    network = networks.load("timm:resnet18")
    assert same(network, expected)
    assert not network.training
    assert networks.input_shape("timm:resnet18", network) == (3, 224, 224)
    assert networks.load("timm:resnet18.a1_in1k") is not None, "the tag of its weights, which are not loaded"


@pytest.mark.parametrize("name", ["torchvision:resnt18", "timm:resnt18", "timm:hf_hub:someone/resnet18"])
def test_unknown_networks_of_a_package_list_the_near_ones(request: pytest.FixtureRequest, name: str) -> None:
    package = name.partition(":")[0]
    request.getfixturevalue(package)
    near = rf"; near it: {package}:resnet18, " if "resnt" in name else "; near it: "
    with pytest.raises(ValueError, match=rf"expected a network of {package}, got '{name}'{near}"):
        networks.load(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("efficientnet", "efficientnet_lite0"),
        ("samll", "small"),
        ("resnet50", "efficientnet_lite0, small"),
        ("small:", "small"),
        ("", "efficientnet_lite0, small"),
    ],
)
def test_an_unknown_name_lists_the_near_ones(name: str, near: str) -> None:
    match = f"expected efficientnet_lite0, small, torchvision:NAME, .*FACTORY, got '{name}'; near it: {near}$"
    with pytest.raises(ValueError, match=match):
        networks.load(name)


def test_a_network_of_ones_own(own: Path) -> None:
    network = networks.load("own_networks:make")
    assert type(network).__name__ == "Sequential"
    assert not network.training
    assert networks.input_shape("own_networks:make", network) is None
    assert same(network, networks.load("own_networks:make"))
    assert not same(network, networks.load("own_networks:make", rng=1))
    assert networks.load("own_networks:ready") is networks.load("own_networks:ready")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "own_network:make",
            "expected a package 'own_network' that can be imported, got: No module .*; install it, or",
        ),
        ("own_networks:mak", "expected a factory in own_networks, got 'own_networks:mak'; near it: own_networks:make"),
        (
            "own_networks:make_none",
            "expected 'own_networks:make_none' to be or to make a torch.nn.Module, got NoneType",
        ),
        ("own_networks:number", "expected 'own_networks:number' to be or to make a torch.nn.Module, got int"),
        ("own_networks:fails", r"to make a network without arguments, got RuntimeError\('no data'\)"),
        ("torch.nn:Conv2d", "expected 'torch.nn:Conv2d' to make a network without arguments, got TypeError"),
        ("broken_networks:x", "expected a package 'broken_networks' that can be imported, got: not today$"),
    ],
)
def test_a_network_of_ones_own_that_is_not_there(own: Path, name: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        networks.load(name)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_package_that_is_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (package, f"{package}.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"expected a package '{package}.*' that can be imported, got: .*; install"):
        networks.load(f"{package}:resnet18")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    trained, path = small_network(rng=7), tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(trained.state_dict(), path)
    assert same(networks.load("small", weights=path), trained)
    assert same(networks.load("small", weights=str(path)), trained)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hacked",)


def test_weights_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"layer0.0.weight": Hostile()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: expected weights that can be read, got: Weights only load"):
        networks.load("small", weights=tmp_path / "weights.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        (None, "no.pth", r"no\.pth: expected a file of weights, found none"),
        (b"", "a.pth", r"a\.pth: expected weights that can be read, got: "),
        (b"x" * 100, "a.pth", r"a\.pth: expected weights that can be read, got: "),
        (b"x" * 100, "a.safetensors", r"a\.safetensors: expected weights that can be read, got: "),
        ([1], "a.pth", r"a\.pth: expected a state dict \(name → tensor\), got list"),
        (
            {"epoch": 3, "model": {}},
            "a.pth",
            r"expected a state dict .*, got keys such as epoch, model; save that part",
        ),
        ({"x": torch.zeros(2)}, "a.pth", r"a\.pth: expected the weights of small, got others: .*Missing key"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, content: Any, name: str, match: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=match):
        networks.load("small", weights=path)
