"""Activations in a store: the same as in memory, and the same wherever the run was killed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from injecting import Returns, n_hooks
from recorded import images, network
from torch import Tensor, nn

from neurovar import responses
from neurovar.covariance import Diagonal
from neurovar.networks import GaussianNoise, Layer, batches, inject, record, stream

N = 23
NOISY = {"noisy": GaussianNoise(3), "dim": lambda x, generator: x / 2}


def stochastic() -> nn.Sequential:
    """Dropout and batch norm in training mode."""
    return nn.Sequential(network(), nn.Dropout(0.5), nn.BatchNorm1d(4)).train()


def loader(size: int = 4, n: int = N) -> Iterator[Any]:
    shown = images(n).assign_coords(label=("stimulus", np.arange(n) % 3))
    return batches(shown, batch_size=size)


class Attacked(GaussianNoise):
    repeats_from = "adversarial responses"


def streamed(path: Path, model: nn.Module | None = None, **options: Any) -> xr.DataArray:
    defaults: dict[str, Any] = {"layers": [Layer("1", max_units=5), Layer("0.conv", max_units=5)], "rng": 0}
    defaults |= {"n_repeats": 2, "modifications": NOISY, "chunk_bytes": 3 * 4 * 9 * 4}
    source = options.pop("source", None)
    return stream(model or stochastic(), loader() if source is None else source, path, **(defaults | options))


def stopping(after: int, size: int = 4) -> Iterator[Any]:
    for number, batch in enumerate(loader(size)):
        if number == after:
            raise RuntimeError("killed")
        yield batch


def stopped(path: Path, after: int, **options: Any) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        streamed(path, source=stopping(after), **options)
    assert not path.exists()


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_store_holds_what_record_gives(tmp_path: Path, size: int) -> None:
    options = {"layers": ["readout", Layer("conv", max_units=6)], "rng": 0, "n_repeats": 2, "modifications": NOISY}
    opened = stream(network(), loader(size), tmp_path / "a.zarr", chunk_bytes=1000, **options)
    expected = record(network(), images(N), **options)
    responses.validate(opened)
    assert opened.chunks is not None and len(opened.chunks[0]) > 1
    assert opened["label"].values.tolist() == [i % 3 for i in range(N)]
    xr.testing.assert_allclose(opened.drop_vars("label").compute(), expected, atol=1e-5)
    assert {name: opened.attrs[name] for name in expected.attrs} == expected.attrs
    assert json.loads(opened.attrs["settings"])["layers"] == [
        "Layer(name='readout')",
        "Layer(name='conv', max_units=6)",
    ]
    xr.testing.assert_identical(opened, responses.open_zarr(tmp_path / "a.zarr"))


def test_pooled_and_named_axes(tmp_path: Path) -> None:
    options = {"layers": [Layer("0", pool_space=True, axes=("row", "column", "channel"))], "rng": 0}
    opened = stream(nn.Sequential(Returns(lambda x: x.permute(0, 2, 3, 1))), loader(), tmp_path / "a.zarr", **options)
    np.testing.assert_allclose(opened[:, 0], images(N).mean(("row", "column")), rtol=1e-6)


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_run_that_was_stopped_goes_on_and_gives_the_same_store(tmp_path: Path, after: int) -> None:
    streamed(tmp_path / "whole.zarr")
    stopped(tmp_path / "part.zarr", after)
    model = stochastic()
    shown: list[int] = []
    model.register_forward_pre_hook(lambda module, args: shown.append(len(args[0])))
    advanced: list[int] = []
    streamed(tmp_path / "part.zarr", model, advance=advanced.append)
    assert tree(tmp_path / "part.zarr") == tree(tmp_path / "whole.zarr")
    assert advanced == [4, 4, 4, 4, 4, 3]
    n_written = 3 * (4 * after // 3)
    assert len(shown) == 4 * (6 - n_written // 4), "only what was not on disk, four repeats of each batch"


def test_a_run_can_be_stopped_again_and_again(tmp_path: Path) -> None:
    streamed(tmp_path / "whole.zarr")
    for after in (2, 3, 3, 5):
        stopped(tmp_path / "part.zarr", after)
    streamed(tmp_path / "part.zarr")
    assert tree(tmp_path / "part.zarr") == tree(tmp_path / "whole.zarr")


def noisy_run(path: Path, source: Any = None) -> None:
    generator = torch.Generator().manual_seed(3)
    model = network()
    with inject(model, {"conv": Diagonal(torch.ones(27))}, generator=generator):
        streamed(path, model, source=source, layers=["readout"], modifications=None, n_repeats=3, generator=generator)


def test_injected_noise_goes_on_where_it_stopped(tmp_path: Path) -> None:
    noisy_run(tmp_path / "whole.zarr")
    with pytest.raises(RuntimeError, match="killed"):
        noisy_run(tmp_path / "part.zarr", stopping(3))
    noisy_run(tmp_path / "part.zarr")
    assert tree(tmp_path / "part.zarr") == tree(tmp_path / "whole.zarr")
    opened = responses.open_zarr(tmp_path / "part.zarr")
    assert opened.attrs["repeats_from"] == "injected noise"
    assert len(np.unique((opened - opened.mean("repeat")).values.ravel())) == opened.size


def test_injected_noise_needs_its_generator(tmp_path: Path) -> None:
    model, match = network(), "expected the generator that the injected noise draws from, got none"
    noisy = inject(model, {"conv": Diagonal(torch.ones(27))}, generator=torch.Generator().manual_seed(3))
    with noisy, pytest.raises(ValueError, match=match):
        streamed(tmp_path / "a.zarr", model, layers=["readout"])
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_stream as tests
def killing():
    for number, batch in enumerate(tests.loader()):
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
tests.streamed(Path(sys.argv[2]), source=killing())
"""


def test_a_killed_process_goes_on_in_another(tmp_path: Path) -> None:
    streamed(tmp_path / "whole.zarr")
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "part.zarr")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"whole.zarr", ".part.zarr.partial"}
    streamed(tmp_path / "part.zarr")
    assert tree(tmp_path / "part.zarr") == tree(tmp_path / "whole.zarr")


def other_weights() -> nn.Module:
    model = stochastic()
    with torch.no_grad():
        model[0].readout.bias[0] += 1e-6
    return model


def other_buffers() -> nn.Module:
    model = stochastic()
    model[2].running_mean[0] += 1e-6
    return model


def other_architecture() -> nn.Module:
    model = stochastic()
    model[1].p = 0.25
    return model


OTHER: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "weights": (lambda: {"model": other_weights()}, r"got weights '\w{16}' instead of '\w{16}'; give those, or delete"),
    "buffers": (lambda: {"model": other_buffers()}, r"got weights '\w{16}' instead of"),
    "architecture": (lambda: {"model": other_architecture()}, "got architecture '.*' instead of '.*'; give"),
    "mode": (lambda: {"model": stochastic().eval()}, "got mode 'eval' instead of 'training'; give"),
    "layers": (lambda: {"layers": ["1"]}, r"""got layers \["Layer\(name='1'\)"\] instead of .*max_units=5"""),
    "order": (lambda: {"layers": ["0.conv", "1"]}, r"""got layers \["Layer\(name='0.conv'\)", .* instead of"""),
    "seed": (lambda: {"rng": 1}, "got rng 1 instead of 0; give"),
    "repeats": (lambda: {"n_repeats": 1}, r"got modifications \['noisy', 'dim'\] instead of"),
    "modifications": (
        lambda: {"modifications": {"a": NOISY["dim"], "b": NOISY["dim"]}},
        r"got modifications \['a', 'a'",
    ),
    "meaning": (
        lambda: {"modifications": {"noisy": Attacked(3), "dim": NOISY["dim"]}},
        "got repeats_from 'adversarial responses and modifications' instead of 'modifications'; g",
    ),
    "chunks": (lambda: {"chunk_bytes": 500}, "got chunk_bytes 500 instead of 432; give"),
    "batches": (
        lambda: {"source": loader(size=5)},
        "expected the inputs, ids and batches with which .* must not shuffle",
    ),
    "inputs": (
        lambda: {"source": batches(images(N) + np.float32(1e-6), batch_size=4)},
        "expected the inputs, ids and batches with which this store was begun",
    ),
    "order of inputs": (lambda: {"source": batches(images(N)[::-1], batch_size=4)}, "expected the inputs, ids and"),
    "ids": (
        lambda: {"source": batches(images(N).assign_coords(stimulus=range(N)), batch_size=4)},
        "expected the inputs, ids and",
    ),
    "fewer": (lambda: {"source": loader(n=7)}, "expected the inputs, ids and batches"),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_store_begun_otherwise_is_refused_and_kept(tmp_path: Path, case: str) -> None:
    make, match = OTHER[case]
    path = tmp_path / "part.zarr"
    stopped(path, 3)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=match):
        streamed(path, **make())
    assert tree(tmp_path) == before
    assert not path.exists()


@pytest.mark.parametrize(("after", "changed"), [(1, 1), (2, 5), (3, 8)])
def test_inputs_of_a_batch_that_is_written_in_part_are_checked_too(tmp_path: Path, after: int, changed: int) -> None:
    stopped(tmp_path / "part.zarr", after)
    shown = images(N).assign_coords(label=("stimulus", np.arange(N) % 3))
    shown.values[changed, 0, 0, 0] += 1e-3
    with pytest.raises(ValueError, match="expected the inputs, ids and batches with which this store was begun"):
        streamed(tmp_path / "part.zarr", source=batches(shown, batch_size=4))


def test_a_loader_that_gives_less_than_before_is_refused(tmp_path: Path) -> None:
    stopped(tmp_path / "part.zarr", 2)
    with pytest.raises(
        ValueError, match=r"with which this store was begun \({'batches': 2, 'stimuli': 8, .*got others"
    ):
        streamed(tmp_path / "part.zarr", source=list(loader())[:1])


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    streamed(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=r"a\.zarr: expected a path where nothing is yet, got one that exists"):
        streamed(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"source": []}, "expected at least one batch, got none"),
        ({"source": [torch.zeros(2, 1, 5, 5), torch.zeros(2, 1, 5, 4)]}, "expected every input to be"),
        ({"source": [{"image": torch.zeros(2, 1, 5, 5), "a/b": [1, 2]}]}, "names of coordinates of letters.*'a/b'"),
        ({"layers": ["0.cnv"]}, "expected a layer of Sequential, got '0.cnv'; near it: 0.conv"),
        ({"rng": np.random.default_rng(0)}, "expected rng to be an integer, .* got Generator"),
        ({"chunk_bytes": 0}, "expected chunk_bytes from 1"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    model = stochastic()
    with pytest.raises(ValueError, match=match):
        streamed(tmp_path / "a.zarr", model, **options)
    assert list(tmp_path.iterdir()) == []
    assert n_hooks(model) == 0


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected an existing folder to write into"):
        streamed(tmp_path / "nowhere" / "a.zarr")


def test_a_stream_of_any_length_takes_the_memory_of_a_batch(tmp_path: Path) -> None:
    """NumPy's share of it; the benchmark measures all."""
    import tracemalloc

    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 2000)).eval()
    shown = (torch.full((50, 100), float(i)) for i in range(40))
    tracemalloc.start()
    opened = stream(model, shown, tmp_path / "a.zarr", layers=["1"], rng=0, chunk_bytes=1 << 18)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened.nbytes == 16_000_000
    assert peak < opened.nbytes / 5, peak


@pytest.mark.gpu
def test_on_a_gpu_a_stopped_run_goes_on(tmp_path: Path) -> None:
    streamed(tmp_path / "whole.zarr", stochastic().cuda())
    stopped(tmp_path / "part.zarr", 3, model=stochastic().cuda())
    with pytest.raises(ValueError, match="got device 'cpu' instead of 'cuda'"):
        streamed(tmp_path / "part.zarr")
    streamed(tmp_path / "part.zarr", stochastic().cuda())
    assert tree(tmp_path / "part.zarr") == tree(tmp_path / "whole.zarr")


def test_labels_of_text_may_have_any_length(tmp_path: Path) -> None:
    def texts() -> Iterator[dict[str, Any]]:
        for i in range(4):
            yield {"image": torch.full((1, 3), float(i)), "stimulus": ["x" * (i + 1)], "kind": ["k" * (5 - i)]}

    opened = stream(nn.Sequential(nn.Flatten()), texts(), tmp_path / "a.zarr", layers=["0"], rng=0)
    assert opened["stimulus"].values.tolist() == ["x", "xx", "xxx", "xxxx"]
    assert opened["kind"].values.tolist() == ["k" * n for n in (5, 4, 3, 2)]


def test_bfloat16_inputs_and_shared_memory_are_told_apart(tmp_path: Path) -> None:
    """The checksum is over the bits of any dtype, also of a view of a larger tensor."""
    whole = torch.arange(48.0).view(4, 12)[:, ::2].bfloat16()

    def part(stop: bool) -> Iterator[Tensor]:
        yield whole[:2]
        if stop:
            raise RuntimeError("killed")
        yield whole[2:]

    options = {"layers": ["0"], "rng": 0, "chunk_bytes": 4 * 6}
    with pytest.raises(RuntimeError, match="killed"):
        stream(nn.Sequential(nn.Flatten()), part(True), tmp_path / "a.zarr", **options)
    opened = stream(nn.Sequential(nn.Flatten()), part(False), tmp_path / "a.zarr", **options)
    np.testing.assert_array_equal(opened[:, 0], whole.float())
