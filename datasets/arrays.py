"""A recording of one's own: NumPy, HDF5, MATLAB or NWB with a few lines that say what is in it.

The lines are a `Declaration` in Python, or a TOML file with the same keys: see docs/your-own-recording.md.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.hashes import content_hash
from neurovar_datasets._fetching.source import AnyPath, CorruptDataError, File
from neurovar_datasets._reading import nwb as _nwb
from neurovar_datasets._reading.fields import (
    HDF5,
    MATLAB,
    NUMPY,
    OnDisk,
    field_of,
    floats,
    ids_of,
    is_sliceable,
    row,
    whole,
)
from neurovar_datasets._reading.hdf5 import open_hdf5
from neurovar_datasets._reading.refusals import checked, counts, expect, reading

from neurovar.responses import DIMS, TIME_DIMS, arrange, bin_edges, count, mark, validate_form

NWB = ".nwb"
SUFFIXES = (NUMPY, ".npz", *HDF5, MATLAB, NWB)
COUNTS = "spike count"
LABELS = ("area", "subject", "session")
OWN_ATTRS = {"units", "hash", "window", "bin_width", "residuals", "recording"}
MAX_TOML_BYTES = 1 << 16
MAX_BINS = 1 << 20
MAX_SECONDS = 1e9


@dataclass(frozen=True)
class Declaration:
    """What a file has and where; each is a key of the TOML file too.

    Parameters
    ----------
    file : path-like
        .npy, .npz, .h5, .hdf5, .mat or .nwb; in a TOML file relative to it, in its folder or below.
    units : str
        Of the responses: "spike count", "spikes/s", "dF/F", …
    responses : str, optional
        The field that has them: the name in a .npz, "group/name" in HDF5, "variable" or "struct.field" in MATLAB. A
        .npy file is one array, and its other fields are names of .npy files beside it.
    dims : sequence of str, optional
        What the axes are, in the order of the array (in MATLAB that of `size`): "stimulus", "repeat" and "unit", or
        "presentation" and "unit"; perhaps "time".
    stimulus : str, optional
        The field that has the id of each stimulus, by default numbered from 0, or of each presentation; of NWB the
        column of `intervals`.
    intervals : str, optional
        Of NWB, the table of presentations, such as "trials" in `intervals/trials`.
    window : sequence of float, optional
        Start and stop in s from stimulus onset, in which the responses are; required by NWB and "time".
    bin_width : float, optional
        Of time bins in s; required by "time", and makes that of NWB.
    area, subject, session : str, optional
        The same for all units.
    unit_coords : mapping of str to str, optional
        What is known of each unit: names of coordinates, and the field (NWB: column of `units`) of each. Where units
        were not all recorded together, "recording" must be the same for those that were.
    residuals : str, optional
        Why they are no raw responses, such as "mean of each stimulus subtracted".
    attrs : mapping of str to str, float or bool, optional
        More attributes, such as citation, doi and license.

    Raises
    ------
    ValueError
        Naming the key, what was expected and what came.
    """

    file: AnyPath
    units: str
    responses: str = ""
    dims: Sequence[str] = ()
    stimulus: str = ""
    intervals: str = ""
    window: Sequence[float] | None = None
    bin_width: float | None = None
    area: str = ""
    subject: str = ""
    session: str = ""
    unit_coords: Mapping[str, str] = field(default_factory=dict)
    residuals: str = ""
    attrs: Mapping[str, str | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_types(self)
        _check_values(self)

    @property
    def path(self) -> Path:
        return Path(self.file)


def declare(path: AnyPath) -> Declaration:
    """The declaration in a TOML file.

    It may have come with a download, so the files that it names must lie in its folder or below; links that lead out
    are refused. In Python any path is allowed.

    Raises
    ------
    ValueError
        For a key that is unknown (the known ones are listed), missing, or has another value than expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a TOML file, found none")
    size = path.stat().st_size
    expect(size <= MAX_TOML_BYTES, path, "size", f"at most {MAX_TOML_BYTES} bytes", size)
    with reading(path):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    known = [key.name for key in fields(Declaration)]
    unknown = [key for key in content if key not in known]
    expect(not unknown, path, ", ".join(unknown), f"keys among {', '.join(known)}", "unknown ones")
    missing = [key for key in ("file", "units") if key not in content]
    expect(not missing, path, ", ".join(missing), "to be declared", "nothing")
    try:
        declaration = Declaration(**content)
    except ValueError as error:
        raise CorruptDataError(f"{path}: {error}") from error
    for file in [declaration.path, *(declaration.path.with_name(name) for name in _names_beside(declaration))]:
        with reading(path, str(file)):
            stays = (path.parent / file).resolve().is_relative_to(path.parent.resolve())
        expect(stays, path, str(file), f"a file in {path.parent} or below", "one elsewhere")
    declaration = replace(declaration, file=path.parent / declaration.file)
    expect(declaration.path.is_file(), path, "file", f"a file at {declaration.path}", "none")
    return declaration


def load(declaration: Declaration | AnyPath, *, lazy: bool = False) -> xr.DataArray:
    """Responses as declared, if they keep the convention.

    Parameters
    ----------
    declaration : Declaration or path-like
        What the file has, or the path of a TOML file that says it.
    lazy : bool, optional
        A dask array that is read by stimuli when computed, for `neurovar.responses.save` to convert a file larger than
        memory; of .npy, HDF5 and MATLAB 7.3 only. Of its values nothing is then checked here, of its ids all.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit[, time]), floating-point numbers, NaN where a repeat is absent; attrs["hash"] is the
        SHA-256 of the file.

    Raises
    ------
    ValueError
        If the declaration is not one, or the file is not there.
    CorruptDataError
        Naming the file and the field, if the file is not as declared, or has values that break the convention: see
        `neurovar.responses.validate`; spike counts must be whole and not negative.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/counts.npy", np.ones((5, 3, 2)))
    ...     load(Declaration(f"{folder}/counts.npy", "spike count", dims=("unit", "stimulus", "repeat"))).shape
    (3, 2, 5)
    """
    if not isinstance(declaration, Declaration):
        declaration = declare(declaration)
    responses = read(declaration, lazy=lazy)
    if lazy:
        return _formally_checked(declaration.path, responses)
    if declaration.units == COUNTS:
        counts(declaration.path, declaration.responses or "responses", responses.values)
    return checked(declaration.path, responses)


def read(declaration: Declaration | AnyPath, *, lazy: bool = False) -> xr.DataArray:
    """Responses as declared, without a look at the values: for `neurovar.statistics.problems` to say what is wrong.

    Parameters
    ----------
    declaration : Declaration or path-like
        What the file has, or the path of a TOML file that says it.
    lazy : bool, optional
        A dask array that is read by stimuli when computed; of .npy, HDF5 and MATLAB 7.3 only.

    Returns
    -------
    DataArray
        Of the dims of the convention, whose values may break it.

    Raises
    ------
    ValueError
        If the declaration is not one, or the file is not there.
    CorruptDataError
        Naming the file and the field, if the file is not as declared.

    Examples
    --------
    >>> read(Declaration("nowhere.npy", "spike count", dims=("stimulus", "repeat", "unit")))
    Traceback (most recent call last):
    ...
    ValueError: nowhere.npy: expected a file, found none
    """
    if not isinstance(declaration, Declaration):
        declaration = declare(declaration)
    path = declaration.path
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, found none")
    if lazy and not is_sliceable(path):
        raise ValueError(f"{path}: expected .npy, HDF5 or MATLAB 7.3 to read lazily, got another form: load it whole")
    responses = _from_nwb(declaration) if path.suffix.lower() == NWB else _from_array(declaration, lazy)
    constant = {name: getattr(declaration, name) for name in LABELS}
    same = {name: ("unit", np.full(responses.sizes["unit"], value)) for name, value in constant.items() if value}
    labelled = responses.assign_coords(same).assign_attrs(_attrs(declaration)).rename("responses")
    return mark(labelled, residuals=declaration.residuals)


def _formally_checked(path: Path, responses: xr.DataArray) -> xr.DataArray:
    try:
        validate_form(responses, TIME_DIMS if "time" in responses.dims else DIMS)
    except ValueError as error:
        raise CorruptDataError(f"{path}: responses: {error}") from error
    return responses


def _attrs(declaration: Declaration) -> dict[str, Any]:
    path = declaration.path
    attrs: dict[str, Any] = {"units": declaration.units, "source": path.name}
    attrs["hash"] = content_hash(path, File(path.name, ""), "sha256")[0]
    if declaration.window is not None:
        attrs["window"] = f"{declaration.window[0]:g} to {declaration.window[1]:g} s"
    if declaration.bin_width is not None:
        attrs["bin_width"] = declaration.bin_width
    return attrs | dict(declaration.attrs)


def _labelled(responses: xr.DataArray, coords: Mapping[str, np.ndarray], path: Path) -> xr.DataArray:
    """With a value of each coordinate for each unit."""
    n = responses.sizes["unit"]
    rows = {"unit": np.arange(n)} | {name: row(path, name, of_rows, n, "units") for name, of_rows in coords.items()}
    return responses.assign_coords({name: ("unit", of_units) for name, of_units in rows.items()})


def _from_nwb(declaration: Declaration) -> xr.DataArray:
    path, column, edges = declaration.path, declaration.stimulus, _edges(declaration)
    with open_hdf5(path) as file, reading(path):
        shown = _nwb.intervals(file, declaration.intervals, columns=[column], times=["start_time"])
        # In the order of time, whatever that of the table: `presentation` counts the rows from here on.
        in_time = np.argsort(shown["start_time"], kind="stable")
        onset, of_rows = shown["start_time"][in_time], shown[column][in_time]
        columns = _nwb.table(file, _nwb.UNITS, columns=list(declaration.unit_coords.values()))
        n_bytes = 2 * 4 * len(onset) * len(columns["id"]) * (len(edges) - 1)  # twice, to put them in order
        expect(n_bytes <= file.limit, path, "window", f"counts of at most {file.limit} bytes", n_bytes)
        span = onset + edges[0], onset + edges[-1]
        seen = _nwb.observed(file, np.arange(len(columns["id"])), *span)
        lost = _nwb.unobserved_units(seen, len(columns["id"]))
        valid = _nwb.outside_invalid_times(file, *span)
        if seen is not None:
            valid &= seen[~lost].all(axis=0)
        expect(not lost.all(), path, "units/obs_intervals", "units observed during the presentations", "none")
        expect(valid.any(), path, declaration.intervals, "presentations in observed, valid time", "none")
        times = _nwb.spike_times(file, np.flatnonzero(~lost))
        ids, window = ids_of(path, column, of_rows[valid]), (edges[0], edges[-1])
        spikes = count(times, onset[valid], ids, window=window, bin_width=declaration.bin_width)
    if lost.any():
        ids_lost = ", ".join(map(str, columns["id"][lost]))
        spikes.attrs["units_left_out"] = f"not observed during most presentations: {ids_lost}"
    if not valid.all():
        spikes.attrs["presentations_left_out"] = int((~valid).sum())
    named = {name: columns[at][~lost] for name, at in declaration.unit_coords.items()}
    return _labelled(spikes, {"unit": columns["id"][~lost]} | named, path)


def _edges(declaration: Declaration) -> np.ndarray:
    start, stop = declaration.window or (0.0, 0.0)
    return bin_edges((start, stop), declaration.bin_width)


def _from_array(declaration: Declaration, lazy: bool) -> xr.DataArray:
    path, name, dims = declaration.path, declaration.responses, tuple(declaration.dims)
    values: np.ndarray | OnDisk = OnDisk.located(path, name, dims) if lazy else whole(path, name, dims)
    n_bins = values.shape[-1] if "time" in dims else 0
    ids = np.arange(values.shape[0])
    if declaration.stimulus:
        noun = "presentations" if "presentation" in dims else "stimuli"
        of_rows = row(path, declaration.stimulus, field_of(path, declaration.stimulus), len(ids), noun)
        ids = ids_of(path, declaration.stimulus, of_rows)
    if "presentation" in dims:
        responses = values.arranged(ids) if isinstance(values, OnDisk) else arrange(values, ids)
    else:
        data = values.lazy() if isinstance(values, OnDisk) else floats(values)
        responses = xr.DataArray(data, dims=TIME_DIMS if n_bins else DIMS, coords={"stimulus": ids})
    if n_bins:
        starts = _edges(declaration)[:-1]
        expect(len(starts) == n_bins, path, name or "time", f"{len(starts)} time bins", n_bins)
        responses = responses.assign_coords(time=starts)
    known = {coord: field_of(path, at) for coord, at in declaration.unit_coords.items()}
    return _labelled(responses, known, path)


def _require(condition: bool, key: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{key}: expected {expected}, got {got}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_SECONDS


def _check_types(declaration: Declaration) -> None:
    for key in ("units", "responses", "stimulus", "intervals", "residuals", *LABELS):
        value = getattr(declaration, key)
        _require(isinstance(value, str), key, "text", repr(value))
    _require(isinstance(declaration.file, str | os.PathLike), "file", "a path", repr(declaration.file))
    dims, named, attrs = declaration.dims, declaration.unit_coords, declaration.attrs
    listed = isinstance(dims, list | tuple) and all(isinstance(dim, str) for dim in dims)
    _require(listed, "dims", "a list of names", repr(dims))
    texts = isinstance(named, Mapping) and all(isinstance(text, str) for pair in named.items() for text in pair)
    _require(texts, "unit_coords", "names of coordinates and the field of each", repr(named))
    plain = isinstance(attrs, Mapping) and all(isinstance(v, str | int | float) for v in attrs.values())
    _require(plain, "attrs", "names and texts or numbers", repr(attrs))
    window, bin_width = declaration.window, declaration.bin_width
    pair = isinstance(window, list | tuple) and len(window) == 2 and all(map(_is_number, window))
    _require(window is None or pair, "window", "start and stop in s", repr(window))
    _require(bin_width is None or _is_number(bin_width), "bin_width", "a number of s", repr(bin_width))


def _check_values(declaration: Declaration) -> None:
    suffix, window, bin_width = declaration.path.suffix.lower(), declaration.window, declaration.bin_width
    _require(suffix in SUFFIXES, "file", f"a name that ends in {', '.join(SUFFIXES)}", declaration.path.name)
    _require(bool(declaration.units), "units", f"text such as {COUNTS!r}, 'spikes/s' or 'dF/F'", "none")
    if window is not None and bin_width is not None:
        n_bins = (window[1] - window[0]) / bin_width if bin_width > 0 else 0
        _require(n_bins <= MAX_BINS, "bin_width", f"at most {MAX_BINS} bins", f"{n_bins:g}")
    twice = [name for name in LABELS if getattr(declaration, name) and name in declaration.unit_coords]
    _require(not twice, "unit_coords", "coordinates that are not the same for all units", twice)
    taken = sorted({"presentation", *TIME_DIMS[:2], "time"} & set(declaration.unit_coords))
    _require(not taken, "unit_coords", "names of coordinates of units", taken)
    own = sorted(OWN_ATTRS & set(declaration.attrs))
    _require(not own, "attrs", "other names than those of keys", own)
    (_check_nwb if suffix == NWB else _check_array)(declaration)
    if window is not None:
        _edges(declaration)


def _check_nwb(declaration: Declaration) -> None:
    _require(declaration.units == COUNTS, "units", f"{COUNTS!r} of NWB, whose spikes are counted", declaration.units)
    for key in ("intervals", "stimulus", "window"):
        _require(bool(getattr(declaration, key)), key, "to be declared for NWB", "nothing")
    for key in ("dims", "responses"):
        value = getattr(declaration, key)
        _require(not value, key, "nothing for NWB, whose spikes are counted", value)


def _check_array(declaration: Declaration) -> None:
    dims, suffix = declaration.dims, declaration.path.suffix.lower()
    known = [{"stimulus", "repeat", "unit"}, {"presentation", "unit"}]
    axes = set(dims) - {"time"}
    wanted = "'stimulus', 'repeat' and 'unit', or 'presentation' and 'unit', perhaps with 'time', each once"
    _require(axes in known and len(set(dims)) == len(dims), "dims", wanted, list(dims))
    needed = {"stimulus": "presentation" in dims, "window": "time" in dims, "bin_width": "time" in dims}
    for key, is_needed in needed.items():
        is_there = bool(getattr(declaration, key))
        _require(is_there or not is_needed, key, f"to be declared with dims {list(dims)}", "nothing")
    _require("time" in dims or declaration.bin_width is None, "bin_width", "a dim 'time' with it", list(dims))
    _require(not declaration.intervals, "intervals", "nothing but for NWB", declaration.intervals)
    named = bool(declaration.responses)
    _require(named != (suffix == NUMPY), "responses", "a field (but for .npy)", repr(declaration.responses))
    for name in _names_beside(declaration):
        _require(Path(name).name == name and name.endswith(NUMPY), "file", "other .npy files beside it", repr(name))


def _names_beside(declaration: Declaration) -> list[str]:
    """The other files that a .npy file is declared with."""
    names = [declaration.stimulus, *declaration.unit_coords.values()]
    return [name for name in names if name] if declaration.path.suffix.lower() == NUMPY else []
