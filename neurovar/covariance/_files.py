"""Covariances from files, and all types by their names."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from neurovar.covariance._base import REGISTRY, Covariance
from neurovar.covariance._safetensors import read_tensors
from neurovar.covariance._tensor_tree import VERSION

# Types within types that a file may hold: a small file could otherwise nest them until the stack overflows.
MAX_DEPTH = 8


def types() -> dict[str, type[Covariance]]:
    """Every type of covariance by its name: those of neurovar, and the user's own that were imported.

    A type is known once its class was made (`Covariance.__init_subclass__`), and so every file of this folder is
    imported here: a new type is one file in it, or one class anywhere else.

    Returns
    -------
    dict of str to type
        The name of the class → the class.

    Examples
    --------
    >>> sorted(name for name, kind in types().items() if kind.__module__.startswith("neurovar."))
    ['Dense', 'Diagonal', 'GainModulated', 'Kronecker', 'LowRankPlusDiagonal', 'MeanShift', 'Sum']
    """
    _import_all()
    return dict(REGISTRY)


@cache
def _import_all() -> None:
    for file in pkgutil.iter_modules([str(Path(__file__).parent)]):
        import_module(f"{__package__}.{file.name}")


def load(path: str | Path) -> Covariance:
    """Read what `Covariance.save` wrote; never unpickles.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Covariance
        Of the type that was saved, on the CPU, without gradients.

    Raises
    ------
    ValueError
        If the file is missing, not safetensors, or holds no covariance, or one of a type whose file is not imported.

    Examples
    --------
    >>> import tempfile
    >>> from neurovar.covariance import Diagonal
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Diagonal.isotropic(3).save(folder + "/noise.safetensors")
    ...     load(folder + "/noise.safetensors").trace()
    3.0
    """
    with read_tensors(path, "a covariance", name="neurovar", version=VERSION) as (header, tensors):
        return from_tree(header, tensors)


def from_tree(tree: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Covariance:
    """The covariance that `Covariance.tree` and `Covariance.named_tensors` describe, as part of a larger file.

    Parameters
    ----------
    tree : mapping of str to JSON values
        The type, `kind`, and the trees of its `parts`.
    tensors : mapping of str to torch.Tensor
        By their names, such as "channel.variance" for the variance of the part "channel". They are not copied.

    Returns
    -------
    Covariance
        Checked as if it were made by hand.

    Raises
    ------
    ValueError
        For an unknown type, types nested more than 8 deep, or tensors that make no such covariance.
    KeyError, TypeError
        For a tree of another form.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> noise = Diagonal.isotropic(3)
    >>> from_tree(noise.tree(), noise.named_tensors()).variance
    tensor([1., 1., 1.])
    """
    return _built(tree, tensors, types(), MAX_DEPTH)


def _built(
    tree: Mapping[str, Any], tensors: Mapping[str, Tensor], known: Mapping[str, type[Covariance]], depth: int
) -> Covariance:
    if depth == 0:
        raise ValueError(f"expected at most {MAX_DEPTH} types within each other, got more")
    if tree["kind"] not in known:
        raise ValueError(f"expected one of {sorted(known)}, got {tree['kind']!r}; import the file that defines it")
    own = {name: tensor for name, tensor in tensors.items() if "." not in name}
    inner: dict[str, dict[str, Tensor]] = {name: {} for name in tree.get("parts", {})}
    for name in tensors.keys() - own.keys():
        part, _, rest = name.partition(".")
        inner[part][rest] = tensors[name]
    parts = {name: _built(subtree, inner[name], known, depth - 1) for name, subtree in tree.get("parts", {}).items()}
    return known[tree["kind"]]._assemble(own, parts)
