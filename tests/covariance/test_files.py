"""What a covariance file may hold, and what is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from neurovar.covariance import Dense, Diagonal, Kronecker, LowRankPlusDiagonal, MeanShift, Sum, load, types


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def header(kind: object, **more: object) -> dict[str, str]:
    return {"neurovar": json.dumps({"kind": kind, "version": 1, **more})}


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Hostile(path.with_name("executed"))))


def write_torch(path: Path) -> None:
    torch.save({"variance": torch.ones(2), "more": Hostile(path.with_name("executed"))}, path)


def write_truncated(path: Path) -> None:
    Diagonal.isotropic(100).save(path)
    path.write_bytes(path.read_bytes()[:-50])


def writer(metadata: dict[str, str] | None, *names: str, value: float = 1.0) -> Callable[[Path], None]:
    """A file with two variances under each name."""
    return lambda path: save_file({name: torch.full((2,), value) for name in names}, path, metadata=metadata)


def nested(kind: str, names: tuple[str, ...], depth: int) -> tuple[dict, list[str]]:
    """`kind` within itself `depth` times, and the names of its tensors."""
    if depth == 0:
        return {"kind": "Diagonal"}, ["variance"]
    inner, tensors = nested(kind, names, depth - 1)
    leaf = {"kind": "Diagonal"}
    parts = {name: leaf if i else inner for i, name in enumerate(names)}
    leaves = [f"{name}.variance" for name in names[1:]]
    return {"kind": kind, "parts": parts}, [f"{names[0]}.{tensor}" for tensor in tensors] + leaves


def write_deep(depth: int) -> Callable[[Path], None]:
    tree, tensors = nested("Kronecker", ("channel", "space"), depth)
    return writer(header(**tree), *tensors)


BOMB = '{"parts": {"channel": ' * 100_000
DIAGONAL = {"kind": "Diagonal"}
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not a tensor in sight"), "could not read"),
    "empty": (lambda path: path.write_bytes(b""), "could not read"),
    "pickle": (write_pickle, "could not read"),
    "torch.save": (write_torch, "could not read"),
    "truncated": (write_truncated, "could not read"),
    "no header": (writer(None, "variance"), "could not read .*'kind'"),
    "header that is not JSON": (writer({"neurovar": "{"}, "variance"), "could not read"),
    "header that is a list": (writer({"neurovar": "[1]"}, "variance"), "could not read"),
    "header that is a number": (writer({"neurovar": "1"}, "variance"), "could not read"),
    "header of a later version": (
        writer(header("Diagonal", version=2), "variance"),
        "could not read .*expected version 1, got 2",
    ),
    "header without end": (writer({"neurovar": BOMB}, "variance"), "could not read .*"),
    "unknown kind": (writer(header("Toeplitz"), "variance"), "could not read .*'Toeplitz'"),
    "a name from elsewhere": (writer(header("Covariance"), "variance"), "could not read .*'Covariance'"),
    "kind that is a list": (writer(header(["Dense"]), "variance"), "could not read"),
    "other tensors": (writer(header("Dense"), "variance"), "could not read .*'variance'"),
    "too many tensors": (writer(header("Diagonal"), "variance", "matrix"), "could not read .*'matrix'"),
    "bad values": (
        writer(header("Diagonal"), "variance", value=-1.0),
        "could not read .*expected variances finite and not negative",
    ),
    "types nested deeply": (write_deep(20), "could not read .*expected at most 8 types within each other, got more"),
    "parts that are a list": (writer(header("Sum", parts=[DIAGONAL]), "0.variance"), "could not read"),
    "parts of a type without": (
        writer(header("Diagonal", parts={"variance": DIAGONAL}), "variance.variance"),
        "could not read",
    ),
    "a part without its tensors": (
        writer(header("Sum", parts={"0": DIAGONAL, "1": DIAGONAL}), "0.variance"),
        "could not read .*'variance'",
    ),
    "tensors of no part": (
        writer(header("Sum", parts={"0": DIAGONAL}), "0.variance", "1.variance"),
        "could not read .*'1'",
    ),
    "a part of an unknown kind": (
        writer(header("Sum", parts={"0": {"kind": "os.system"}}), "0.variance"),
        "could not read .*'os.system'",
    ),
    "parts by other names": (
        writer(header("Sum", parts={"1": DIAGONAL}), "1.variance"),
        "could not read .*'0'",
    ),
    "a sum without parts": (writer(header("Sum", parts={})), "could not read .*a tuple of covariances"),
    "a sum with tensors": (
        writer(header("Sum", parts={"0": DIAGONAL}), "0.variance", "variance"),
        "could not read .*expected no tensors beside the parts of a sum",
    ),
    "half a Kronecker": (
        writer(header("Kronecker", parts={"channel": DIAGONAL}), "channel.variance"),
        "could not read .*'space'",
    ),
    "a Kronecker of tensors": (
        writer(header("Kronecker"), "channel", "space"),
        "could not read .*expected covariances without state or mean, got Tensor",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    write, message = HOSTILE[name]
    path = tmp_path / "noise.safetensors"
    write(path)
    with pytest.raises(ValueError, match=f"expected a covariance saved by neurovar, {message}"):
        load(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["nowhere.safetensors", "."])
def test_missing_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a covariance saved by neurovar, found no file at"):
        load(tmp_path / name)


def test_types_nested_as_far_as_allowed(tmp_path: Path) -> None:
    write_deep(7)(tmp_path / "deep")
    assert load(tmp_path / "deep").n == 2**8


def test_a_small_file_of_many_units_stays_small(tmp_path: Path) -> None:
    """A Kronecker of 2^80 units takes no memory until it is asked for some."""
    factor = Diagonal.isotropic(2**20)
    Kronecker(factor, Kronecker(factor, Kronecker(factor, factor))).save(tmp_path / "noise")
    assert load(tmp_path / "noise").n == 2**80


def test_tensors_shared_in_memory_are_saved_apart(tmp_path: Path) -> None:
    values = torch.arange(1.0, 9.0)
    noise = Kronecker(Diagonal(values), Sum((Diagonal(values), LowRankPlusDiagonal(values[:, None], values))))
    noise.save(tmp_path / "noise")
    assert torch.equal(load(tmp_path / "noise").diagonal(), noise.diagonal())


def test_noise_that_is_being_learned_is_saved(tmp_path: Path) -> None:
    mean = torch.nn.Parameter(torch.ones(3))
    (Dense(torch.eye(3)) + MeanShift(mean)).save(tmp_path / "noise")
    loaded = load(tmp_path / "noise")
    assert loaded.trace() == 6 and not loaded.trainable


def test_files_of_before_there_were_parts(tmp_path: Path) -> None:
    save_file({"variance": torch.ones(2)}, tmp_path / "noise", metadata=header("Diagonal"))
    assert isinstance(load(tmp_path / "noise"), Diagonal)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"noise: expected an existing folder to write into, got .*nowhere"):
        Diagonal.isotropic(2).save(tmp_path / "nowhere" / "noise")


def test_a_type_of_ones_own_is_one_class(tmp_path: Path) -> None:
    class Doubled(Diagonal):
        """Known by its name once its class was made."""

    (Kronecker(Doubled(torch.ones(2)), Diagonal.isotropic(3))).save(tmp_path / "noise")
    loaded = load(tmp_path / "noise")
    assert isinstance(loaded, Kronecker) and type(loaded.channel) is Doubled and types()["Doubled"] is Doubled


def test_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a name of its own for a covariance type, got .*Dense"):
        type("Dense", (Diagonal,), {"__module__": __name__})
