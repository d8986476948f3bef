"""Which tests run here, on one thread each, and what Brain-Score needs before it is imported."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from servers import Server, running

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist already uses every core
# Worker processes import what the tests import.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])

RECORDING = "cowley2023_v4/responses_210325.npy"
TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _declare_torchvision_operators() -> Any:
    """Let torchvision import where its compiled half was built for another torch; the result must be kept alive."""
    import torch

    spec = find_spec("torchvision")
    assert spec is not None and spec.origin is not None
    for compiled in Path(spec.origin).parent.glob("_C*.so"):
        with suppress(OSError):
            torch.ops.load_library(compiled)
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in TORCHVISION_SCHEMAS:
        library.define(schema)
    return library


if find_spec("torchvision"):
    TORCHVISION_LIBRARY = _declare_torchvision_operators()


@pytest.fixture(autouse=True, scope="session")
def private_brainscore_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BS_INSTALL_DEPENDENCIES", "no")
        for name in ("RESULTCACHING_HOME", "BRAINIO_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no NEUROVAR_DATA and no proxy."""
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("NEUROVAR_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "neurovar"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers on this machine; see `servers.Server` for what they can be told to do."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(running(Server(*args, **kwargs)))


def _missing_data() -> str | None:
    import pooch

    folders = [Path(folder) for folder in (os.environ.get("NEUROVAR_DATA"), pooch.os_cache("neurovar")) if folder]
    if any((folder / RECORDING).is_file() for folder in folders):
        return None
    return f"set NEUROVAR_DATA: no {RECORDING} in {', '.join(map(str, folders))}"


def _missing_network() -> str | None:
    return None if os.environ.get("NEUROVAR_NETWORK") == "1" else "set NEUROVAR_NETWORK=1 to use the internet"


def _missing_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, missing in {"data": _missing_data, "network": _missing_network, "gpu": _missing_gpu}.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = missing() if marked else None
        for item in marked if reason else []:
            item.add_marker(pytest.mark.skip(reason=reason))
