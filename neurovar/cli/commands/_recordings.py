"""Open a recording, whatever it is: the name of a public source, or a file of one's own."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import neurovar_datasets
import xarray as xr
from neurovar_datasets import is_hdf5

from neurovar.responses import open_zarr, sum_time

Window = tuple[float, float]

_ARRAY = '''units = "spike count"
dims = ["unit", "stimulus", "repeat"]    # of the array, in its order
area = "V4"'''
_NAMED = f'responses = "counts"    # the field that has them\n{_ARRAY}'
_NWB = """units = "spike count"
intervals = "trials"
stimulus = "stimulus_id"    # a column of the intervals
window = [0.05, 0.25]    # s from stimulus onset"""
DECLARATIONS = {".npy": _ARRAY, ".nwb": _NWB} | dict.fromkeys((".npz", ".mat", ".h5", ".hdf5"), _NAMED)
"""What to write of files that do not say themselves what they have."""


class UsageError(ValueError):
    """What was asked for is not there, or cannot be had in this way; nothing is wrong with any file."""


def open_recording(
    what: str, *, session: str | None = None, window: Window | None = None, as_it_is: bool = False
) -> xr.DataArray:
    """The responses of a public source, or of a path; a name comes first: write ./name for a path that is called so.

    Parameters
    ----------
    what : the name of a source in `neurovar_datasets`, or a path as for `open_path`.
    session : of a public source that has more than one.
    window : start and stop in s from stimulus onset.
    as_it_is : as for `open_path`.

    Raises
    ------
    UsageError : if there is neither, or the session or the window does not fit.
    ValueError : if a file is not what it should be, or cannot be had.
    """
    if what in neurovar_datasets.sources():
        return open_source(what, session=session, window=window)
    if session is not None:
        raise UsageError(f"expected a session of a public source only, got session {session!r} of the path {what}")
    return open_path(Path(what), window=window, as_it_is=as_it_is)


def open_source(name: str, *, session: str | None = None, window: Window | None = None) -> xr.DataArray:
    """One session of a public source."""
    module = getattr(neurovar_datasets, name)
    options = inspect.signature(module.load).parameters
    if "session" not in options:
        raise UsageError(f"expected a recording, got {name}, which has images and no responses")
    chosen = {} if session is None and not _required("session", options) else {"session": _session(module, session)}
    if window is not None and "window" not in options:
        raise UsageError(f"expected no window for {name}, which is published for a fixed one, got {window}")
    if window is None and _required("window", options):
        raise UsageError(f"expected a window for {name}, in s from stimulus onset, such as --window 0.05 0.25")
    return module.load(**chosen, **({} if window is None else {"window": window}))


def open_path(path: Path, *, window: Window | None = None, as_it_is: bool = False) -> xr.DataArray:
    """A Zarr store (.zarr), a declaration of files of one's own (.toml), or a BrainIO assembly (.nc).

    What is resolved in time is summed over `window`, if one is given. `as_it_is` reads declared files without a look at
    their values, and only when they are computed, where the format allows it.

    Raises
    ------
    UsageError : if there is nothing at `path`, or something else; the message shows a declaration.
    """
    if not path.exists():
        known = ", ".join(neurovar_datasets.sources())
        raise UsageError(f"expected a path, or the name of a source ({known}), got {str(path)!r}")
    match path.suffix.lower():
        case ".zarr":
            responses = open_zarr(path)
        case ".toml":
            responses = _declared(path) if as_it_is else neurovar_datasets.arrays.load(path)
        case ".nc":
            responses = neurovar_datasets.brainio.read(path)
        case suffix:
            raise UsageError(f"{path}: expected a .zarr, .toml or .nc file{_advice(path.name, suffix)}")
    return responses if window is None else sum_time(responses, window=window)


def _declared(path: Path) -> xr.DataArray:
    declaration = neurovar_datasets.arrays.declare(path)
    lazy = declaration.path.is_file() and (declaration.path.suffix.lower() == ".npy" or is_hdf5(declaration.path))
    return neurovar_datasets.arrays.read(declaration, lazy=lazy and declaration.path.suffix.lower() != ".nwb")


def _advice(file: str, suffix: str) -> str:
    if suffix not in DECLARATIONS:
        return ""
    lines = f'file = "{file}"\n{DECLARATIONS[suffix]}'
    return f"; say what is in it in a file recording.toml beside it, and open that:\n\n{lines}\n"


def _required(option: str, options: Mapping[str, inspect.Parameter]) -> bool:
    return option in options and options[option].default is inspect.Parameter.empty


def _session(module: ModuleType, session: str | None) -> str:
    """That session or, where none was named, the only one."""
    sessions = module.sessions()
    if session in sessions or (session is None and len(sessions) == 1):
        return session or sessions[0]
    shown = ", ".join(sessions[:8]) + (", …" if len(sessions) > 8 else "")
    got = "none" if session is None else repr(session)
    raise UsageError(f"expected --session with one of the {len(sessions)} sessions ({shown}), got {got}")
