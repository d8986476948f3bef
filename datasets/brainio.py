"""Assemblies of Brain-Score (BrainIO): its public netCDF files, one's own, and live ones, both ways and without loss.

Nothing here needs Brain-Score: netCDF is read and written directly, and a live assembly is an `xarray.DataArray`. The
public assemblies are those that keep their repetitions; the others are averages, which have no variability.

Schrimpf, Kubilius, Hong, et al. 2018, doi:10.1101/407007.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, Source, choose
from neurovar_datasets._reading import brainio_netcdf as _brainio_netcdf
from neurovar_datasets._reading.refusals import checked, expect, reading, size_limit
from neurovar_datasets._registry.brainio_assemblies import ASSEMBLIES, Assembly

from neurovar.responses import flatten, from_responses, mark, to_responses, validate

# Laboratories name these coordinates differently; the first that an assembly has is taken.
SUBJECTS = ("subject", "animal", "monkey", "subject_id")
AREAS = ("area", "region")

SOURCE = Source(
    name="brainio",
    title="Brain-Score: Which Artificial Neural Network for Object Recognition is most Brain-Like?",
    doi="10.1101/407007",
    citation=(
        "Schrimpf M, Kubilius J, Hong H, et al. (2018). Brain-Score: Which Artificial Neural Network for Object "
        "Recognition is most Brain-Like? bioRxiv 407007. Cite each assembly's own paper too."
    ),
    license="not stated",
    license_url="https://github.com/brain-score/vision",
    redistribution=None,
    derivatives=None,
    units="of each assembly its own",
    area="V1, V2, V4, IT",
    species="macaque, human",
    method="electrodes, fMRI",
    n_units="166 to 221,168",
    n_stimuli="100 to 7250",
    n_repeats="3 to 179",
    sessions={name: (assembly.file,) for name, assembly in ASSEMBLIES.items()},
)


def sessions() -> tuple[str, ...]:
    """The names of the assemblies in Brain-Score's registry.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()[0]
    'MajajHong2015.public'
    """
    return tuple(ASSEMBLIES)


def load(
    *, session: str = "MajajHong2015.public", subject: str | None = None, path: AnyPath | None = None
) -> xr.DataArray:
    """Responses of one assembly of Brain-Score.

    Trials that have no value for some of the units are left out, and attrs["dropped_trials"] says how many. An assembly
    whose units were not recorded together has the coordinate `recording` of units, and attrs["apart"] with the reason.

    Parameters
    ----------
    session : str, optional
        One of `sessions()`. Most are private in Brain-Score: their files must be at `path`, in `NEUROVAR_DATA` or in
        the cache.
    subject : str, optional
        Whose units; by default those of all subjects, which were never recorded together.
    path : path-like, optional
        The netCDF file, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit), with `time` if the assembly has several time bins: `time` is the start of each in s
        from stimulus onset, attrs["bin_width"] the width in s. `unit` has the coordinates `area`, `subject` and
        `session`, and all that the assembly has.

    Raises
    ------
    ValueError
        If session or subject are unknown, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was declared, or cannot be had.

    References
    ----------
    Schrimpf, Kubilius, Hong, et al. 2018, bioRxiv, doi:10.1101/407007, and that in attrs["doi"] of each assembly.

    Examples
    --------
    >>> load(session="MajajHong2015.average")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected the session to be one of 'MajajHong2015.public', ..., got 'MajajHong2015.average'
    """
    assembly = choose(session, ASSEMBLIES, kind="session")
    return _load_assembly(find(assembly.file, path=path), assembly, session, subject)


def _load_assembly(path: Path, assembly: Assembly, session: str, subject: str | None) -> xr.DataArray:
    with reading(path, "responses"):
        whole_table = flatten(_brainio_netcdf.read(path))
    table, together = _of_subject(whole_table, subject)
    with reading(path, "responses"):
        table, dropped = _whole_trials(path, table)
        _check_padding(path, table)
        # The rows of an assembly are in no order that is known to be that in time, which `presentation` is.
        responses = _labelled(_converted(table), session).drop_vars("presentation", errors="ignore")
    attrs: dict[str, Any] = SOURCE.attrs(assembly.file) | {
        "title": assembly.title,
        "doi": assembly.doi,
        "citation": assembly.citation,
        "units": assembly.units,
    }
    apart = assembly.apart or ("" if together else "units of several subjects; load(subject=…) gives those of one")
    if apart:
        # Of units that are known to be apart, nothing says which were together: each is a recording of its own.
        by_subject = not assembly.apart and "subject" in responses.coords
        alone = np.arange(responses.sizes["unit"])
        responses = mark(responses, recording="subject" if by_subject else alone)
        attrs |= {"apart": apart}
    attrs |= {"dropped_trials": dropped} if dropped else {}
    return checked(path, responses.assign_attrs(attrs))


def _whole_trials(path: Path, table: xr.DataArray) -> tuple[xr.DataArray, int]:
    """The presentations with a value for every unit, and how many others there are."""
    whole = table.notnull().all([dim for dim in table.dims if dim != "presentation"]).values
    expect(whole.any(), path, "responses", "a presentation with a value for every unit", "none")
    return (table if whole.all() else table.isel(presentation=np.flatnonzero(whole))), int((~whole).sum())


def _of_subject(table: xr.DataArray, subject: str | None) -> tuple[xr.DataArray, bool]:
    """The units of one subject, or all, and whether one subject has them all."""
    name = _of_units(table, "neuroid", SUBJECTS)
    subjects = [] if name is None else table[name].values.astype(str).tolist()
    if subject is None:
        return table, len(set(subjects)) == 1
    choose(subject, dict.fromkeys(subjects), kind="subject")
    return table.isel(neuroid=np.flatnonzero(np.array(subjects) == subject)), True


def _of_units(da: xr.DataArray, dim: str, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in da.coords and da[name].dims == (dim,)), None)


def _labelled(responses: xr.DataArray, session: str) -> xr.DataArray:
    """With the coordinates of units that every recording has, by the names that it has here."""
    for label, names in {"area": AREAS, "subject": SUBJECTS}.items():
        name = _of_units(responses, "unit", names)
        if name is not None:
            responses = responses.assign_coords({label: ("unit", responses[name].values)})
    if "session" not in responses.coords:
        responses = responses.assign_coords(session=("unit", np.full(responses.sizes["unit"], session)))
    if "time" in responses.coords and "bin_width" in responses.attrs:
        start, stop = responses["time"].values[0], responses["time"].values[-1] + responses.attrs["bin_width"]
        responses = responses.assign_attrs(window=f"{start:g} to {stop:g} s")
    return responses


def _converted(table: xr.DataArray) -> xr.DataArray:
    return to_responses(table, stimulus=_stimulus_name(table))


def _stimulus_name(table: xr.DataArray) -> str:
    """The coordinate with the stimulus ids: assemblies of before 2022 call it `image_id`, as BrainIO knows."""
    return "image_id" if "image_id" in table.coords and "stimulus_id" not in table.coords else "stimulus_id"


def _check_padding(path: AnyPath, table: xr.DataArray) -> None:
    """Refuse one stimulus with so many repeats, and so many stimuli, that what pads the others is past all measure."""
    limit = size_limit(Path(path).stat().st_size)
    ids = table.coords.get(_stimulus_name(table))
    n_trials = 0
    if ids is not None and ids.dims == ("presentation",):
        counts = pd.Series(ids.values).value_counts()
        n_trials = len(counts) * int(counts.max())
    # Repeats are padded to the stimulus with most: ids 1…n with one repeated n times need n² trials
    # of room.
    n_bytes = 8 * n_trials * (table.size // table.sizes["presentation"])
    expect(n_bytes <= limit, path, "stimulus_id", f"at most {limit} bytes when padded", n_bytes)


def read(path: AnyPath) -> xr.DataArray:
    """Responses from any netCDF file of BrainIO; nothing is left out.

    Parameters
    ----------
    path : path-like
        Path The netCDF 4 file of one assembly.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit), with `time` if there are several time bins, as
        `neurovar.responses.to_responses` has it.

    Raises
    ------
    CorruptDataError
        If the file is no netCDF 4 file of one assembly, or its trials are not whole, naming file and field.

    Examples
    --------
    >>> import tempfile
    >>> da = xr.DataArray(np.ones((2, 3, 4)), dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a", "b"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(da, Path(folder) / "assy_me.nc")
    ...     again = read(Path(folder) / "assy_me.nc")
    >>> dict(again.sizes), again.stimulus.values.tolist()
    ({'stimulus': 2, 'repeat': 3, 'unit': 4}, ['a', 'b'])
    """
    with reading(path, "responses"):
        table = flatten(_brainio_netcdf.read(path))
        _check_padding(path, table)
        responses = _converted(table)
    return checked(path, responses)


def save(responses: xr.DataArray, path: AnyPath) -> None:
    """Write the trials of responses as a netCDF file that Brain-Score loads.

    A table has no place for what belongs to absent trials, for coordinates of stimuli and units together, and for
    attributes that are not text or numbers: these are left out. `neurovar.responses.save` keeps everything.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit[, time]), valid. Coordinates may be numbers, text, times, True and False.
    path : path-like
        Path The file, which is replaced if it is there; Brain-Score names them `assy_<identifier>.nc`.

    Raises
    ------
    ValueError
        Naming what cannot be stored; nothing is then written.

    Examples
    --------
    >>> da = xr.DataArray(np.ones((2, 3, 4)), dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a", "b"]})
    >>> save(da.assign_coords({"my depth": ("unit", range(4))}), "assy_me.nc")
    Traceback (most recent call last):
    ...
    ValueError: expected a coordinate whose name netCDF can have, without spaces or '/', got 'my depth'
    """
    _brainio_netcdf.write(Path(path), from_responses(responses))


def from_assembly(assembly: xr.DataArray) -> xr.DataArray:
    """Responses from a live `NeuroidAssembly`, or from any DataArray with the dims of one.

    Parameters
    ----------
    assembly : DataArray
        Of dims presentation, neuroid and perhaps time_bin.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit), with `time` if there are several time bins, as
        `neurovar.responses.to_responses` has it. `to_assembly` gives the assembly back.

    Raises
    ------
    ValueError
        If it is no such array, or its trials are not whole.

    Examples
    --------
    >>> ids = ("presentation", ["a", "b", "a"])
    >>> assembly = xr.DataArray([[1.0], [2.0], [3.0]], dims=("presentation", "neuroid"), coords={"stimulus_id": ids})
    >>> from_assembly(assembly).values[:, :, 0].tolist()
    [[1.0, 3.0], [2.0, nan]]
    """
    if not isinstance(assembly, xr.DataArray):
        raise ValueError(f"expected an assembly, which is an xarray.DataArray, got {type(assembly).__name__}")
    responses = _converted(flatten(assembly))
    return validate(responses, time="time" in responses.dims)


def to_assembly(responses: xr.DataArray) -> xr.DataArray:
    """The assembly presentation × neuroid[ × time_bin] of responses; `NeuroidAssembly(…)` of it is Brain-Score's own.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit[, time]), valid.

    Returns
    -------
    DataArray
        Whose dims have a MultiIndex of all that is known of them, as BrainIO makes it. What belongs to absent trials
        and coordinates of stimuli and units together are left out.

    Raises
    ------
    ValueError
        If the responses do not keep the convention.

    Examples
    --------
    >>> da = xr.DataArray(np.ones((2, 3, 4)), dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a", "b"]})
    >>> assembly = to_assembly(da)
    >>> dict(assembly.sizes), assembly.indexes["presentation"].names
    ({'presentation': 6, 'neuroid': 4}, FrozenList(['stimulus_id', 'repetition']))
    """
    return _with_multi_indexes(from_responses(responses))


def _with_multi_indexes(flat: xr.DataArray) -> xr.DataArray:
    """All coordinates of a dim become levels of its MultiIndex; xarray would make a plain index of a single one."""
    for dim in flat.dims:
        names = [name for name, coord in flat.coords.items() if coord.dims == (dim,) and name != dim]
        if len(names) == 1 and dim not in flat.coords:
            index = pd.MultiIndex.from_arrays([flat[names[0]].values], names=names)
            flat = flat.drop_vars(names).assign_coords(_index_coords(index, str(dim)))
        elif names:
            levels: dict[Hashable, Any] = {dim: names}
            flat = flat.set_index(levels, append=True)
    return flat


def _index_coords(index: pd.MultiIndex, dim: str) -> Any:
    return xr.Coordinates.from_pandas_multiindex(index, dim) if hasattr(xr, "Coordinates") else {dim: index}
