"""Allen Brain Observatory, Visual Coding: mouse visual system, spikes of six probes, or 2-photon imaging of other mice.

Neuropixels: DANDI 000021 (stimuli "brain observatory 1.1") and 000022 ("functional connectivity"), doi:10.1038/
s41586-020-03171-x. 2-photon: DANDI 000728, doi:10.1038/s41593-019-0550-9. Files are read as AllenSDK 2 and
github.com/catalystneuro/visual-coding-to-nwb-v2 write them.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, File, Source, choose
from neurovar_datasets._reading import allen as _allen
from neurovar_datasets._reading.allen import UnitFilter
from neurovar_datasets._reading.hdf5 import open_hdf5
from neurovar_datasets._reading.refusals import checked, expect
from neurovar_datasets._registry.allen_sessions import FILES

from neurovar.responses import bin_edges

_NO_IMAGES = (
    "Neuropixels files have no images. The same images are in files of 2-photon sessions "
    "(https://dandiarchive.org/dandiset/000728, *StimB_behavior+image+ophys.nwb), and, as natural_scene_<frame>.tiff, "
    "in https://allen-brain-observatory.s3.amazonaws.com/visual-coding-neuropixels/ecephys-cache/"
    "natural_scene_templates/"
)
# It becomes part of an address in the file, so nothing with a slash or a dot may pass.
STIMULUS = re.compile(r"natural_scenes|natural_movie_\w+|static_gratings|drifting_gratings\w*")
ALLEN_FILTER = UnitFilter(quality="good", max_isi_violations=0.5, max_amplitude_cutoff=0.1, min_presence_ratio=0.95)
"""The units that AllenSDK itself keeps: its `UNIT_FILTER_DEFAULTS`."""

SOURCE = Source(
    name="allen_visual_coding",
    title="Allen Brain Observatory: Visual Coding – Neuropixels",
    doi="10.1038/s41586-020-03171-x",
    citation=(
        "Siegle JH, Jia X, Durand S, et al. (2021). Survey of spiking in the mouse visual system reveals functional "
        "hierarchy. Nature 592:86–92."
    ),
    license="Allen Institute Terms of Use",
    license_url="http://www.alleninstitute.org/legal/terms-use/",
    redistribution=None,
    derivatives=None,
    units="spike count",
    area="V1 and others",
    species="mouse",
    method="Neuropixels, 2-photon",
    n_units="about 700",
    n_stimuli="118 scenes, gratings, movies",
    n_repeats="10 to 75",
    sessions=FILES,
)
_IMAGING = replace(
    SOURCE,
    title="Allen Brain Observatory: Visual Coding – Optical Physiology",
    doi="10.1038/s41593-019-0550-9",
    citation=(
        "de Vries SEJ, Lecoq JA, Buice MA, et al. (2020). A large-scale standardized physiological survey reveals "
        "functional organization of the mouse visual cortex. Nature Neuroscience 23:138–151."
    ),
    license="CC-BY-4.0",
    license_url="https://creativecommons.org/licenses/by/4.0/",
    redistribution=True,
    derivatives=True,
    units="dF/F",
    sessions={},
)


def sessions() -> tuple[str, ...]:
    """The 58 Neuropixels sessions; natural scenes and static gratings were shown in the first 32, of DANDI 000021.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()[0]
    '715093703'
    """
    return tuple(SOURCE.sessions)


def load(
    *,
    window: tuple[float, float],
    session: str | None = None,
    path: AnyPath | None = None,
    stimulus: str = "natural_scenes",
    bin_width: float | None = None,
    units: UnitFilter | None = None,
    trace: str | None = None,
) -> xr.DataArray:
    """Spike counts, or means of dF/F, of one session in a window about each presentation of one kind of stimulus.

    A stimulus is an image, a grating (a combination of its parameters), or one frame of a movie, as AllenSDK's
    conditions are; a repeat is one presentation, of a movie one showing of the clip. Movies are shown at 30 frames/s:
    windows of successive frames overlap unless they are 1/30 s long, and their responses are no independent samples.
    Blank sweeps are left out, and presentations that touch a time marked as invalid for the stimulus, for all probes,
    or for a probe of a unit that is kept (attrs["presentations_left_out"] says how many); so are, in imaging, those
    whose window lies not wholly in the recording.

    No unit is left out by default. AllenSDK itself keeps those with quality "good", ISI violations ≤ 0.5, amplitude
    cutoff ≤ 0.1 and presence ratio ≥ 0.95 (its documentation and `UNIT_FILTER_DEFAULTS`), as
    `load(…, units=ALLEN_FILTER)` does, and of these only units in the brain. Units that were not observed during half
    of the presentations are left out, and so are presentations during which some other unit was not (`obs_intervals`):
    no spikes of a unit that nobody looked at are not silence.

    Parameters
    ----------
    window : tuple of float
        Start and stop in s from stimulus onset. Scenes and static gratings last 0.25 s, drifting gratings 2 s.
    session : str, optional
        One of `sessions()`, "715093703"; not needed if a file is given.
    path : path-like, optional
        An NWB file of the user's own, of probes or imaging; its https address, of which only what is needed is then
        transferred (`SOURCE.sessions[session][0].url`); or, with `session`, a folder that has the file. Without
        `session` its hash is not checked. By default the file (about 2.5 GB) is searched for. 2-photon files:
        https://dandiarchive.org/dandiset/000728, those named *_behavior+image+ophys.nwb.
    stimulus : str, optional
        "natural_scenes", "natural_movie_one" (or another), "static_gratings", "drifting_gratings", ….
    bin_width : float, optional
        In s; by default one value for the whole window.
    units : UnitFilter, optional
        Of probes, which units are wanted, such as `UnitFilter(areas="VISp", min_snr=1.0)`; by default all.
    trace : str, optional
        Of imaging: "DfOverF", the default, or "DfOverFEvents" (detected events, of most sessions).

    Returns
    -------
    DataArray
        (stimulus, repeat, unit[, time]): float32 spike counts, or the mean over imaging frames taken in the window (or
        bin), whose attrs["units"] is "dF/F" or "events". `stimulus` has `frame` or the parameters of the gratings (°,
        cycles/s, cycles/°) as coordinates, `unit` has `area`, `session`, `subject`, and of probes `probe` and the
        quality metrics. attrs["units_left_out"] has for each reason the ids of the units that are not there.

    Raises
    ------
    ValueError
        For an unknown session, stimulus or area, a window or bin that is not possible, filters that no unit passes, or
        options that do not fit the kind of recording.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had. Static gratings of DANDI 000728 are refused: its
        conversion cut their table to 3 rows.

    References
    ----------
    Siegle et al. 2021, Nature 592:86, doi:10.1038/s41586-020-03171-x
    de Vries et al. 2020, Nature Neuroscience 23:138, doi:10.1038/s41593-019-0550-9
    Unit quality: https://allensdk.readthedocs.io/en/latest/visual_coding_neuropixels.html

    Examples
    --------
    >>> load(session="1", window=(0.05, 0.25), units=ALLEN_FILTER)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected the session to be one of '715093703', '719161530', ..., got '1'
    """
    bin_edges(window, bin_width)
    wanted = UnitFilter() if units is None else units
    _require_known(stimulus)
    place, used = _locate(session, path)
    with open_hdf5(place) as hdf5:
        source = _IMAGING if _allen.is_imaging(hdf5) else SOURCE
        if source is _IMAGING:
            all_units = "no areas or limits of metrics, as imaging has one area and no metrics"
            _require(wanted.wants_all, place, all_units, wanted)
            choose(trace := trace or "DfOverF", _allen.TRACES, kind="trace")
            responses = _allen.imaging(hdf5, stimulus, window=window, bin_width=bin_width, trace=trace)
        else:
            _require(trace is None, place, "no trace, as these are spikes", trace)
            responses = _allen.spikes(hdf5, stimulus, window=window, bin_width=bin_width, wanted=wanted)
    recorded = str(responses["session"].values[0])
    expect(session in (None, recorded), place, "general/session_id", str(session), recorded)
    return checked(place, responses.assign_attrs(source.attrs(*used) | responses.attrs))


def images(
    *, session: str | None = None, path: AnyPath | None = None, stimulus: str = "natural_scenes"
) -> xr.DataArray:
    """The images that were shown; only files of 2-photon sessions have them, and the same were shown in all.

    Parameters
    ----------
    session : str, optional
        Neuropixels sessions have no images in their files; for them the error says where the images are.
    path : path-like, optional
        An NWB file of a 2-photon session, or its https address.
    stimulus : str, optional
        "natural_scenes" (118 images of 918 × 1174 pixels, in "StimB" files), or a movie, whose frames come.

    Returns
    -------
    DataArray
        (stimulus, channel, row, column), float32 in [0, 1], grey, before they were warped for the monitor; the ids are
        those of `load`.

    Raises
    ------
    ValueError
        If there is no such file or it has no images.
    CorruptDataError
        If the file is not what was expected.

    References
    ----------
    de Vries et al. 2020, Nature Neuroscience 23:138, doi:10.1038/s41593-019-0550-9

    Examples
    --------
    >>> images(session="715093703")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected a file of a 2-photon session, got none: Neuropixels files have no images. ...
    """
    if path is None:
        raise ValueError(f"expected a file of a 2-photon session, got none: {_NO_IMAGES}")
    _require_known(stimulus)
    place, _ = _locate(session, path)
    with open_hdf5(place) as hdf5:
        _require(_allen.is_imaging(hdf5), place, "a file of a 2-photon session", f"one of probes: {_NO_IMAGES}")
        pixels = _allen.pixels(hdf5, stimulus)
    return xr.DataArray(
        pixels[:, None],
        dims=("stimulus", "channel", "row", "column"),
        coords={
            "stimulus": [_allen.stimulus_id(stimulus, {"frame": frame}) for frame in range(len(pixels))],
            "channel": ["grey"],
            "frame": ("stimulus", np.arange(len(pixels))),
        },
        name="images",
        attrs=_IMAGING.attrs() | {"units": "intensity"},
    )


def _require(condition: bool, place: AnyPath, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{place}: expected {expected}, got {got}")


def _require_known(stimulus: str) -> None:
    if not STIMULUS.fullmatch(stimulus):
        known = "natural_scenes, natural_movie_…, static_gratings, drifting_gratings…"
        raise ValueError(f"expected the stimulus to be one of {known}, got {stimulus!r}")


def _locate(session: str | None, path: AnyPath | None) -> tuple[AnyPath, tuple[File, ...]]:
    """Where to read from, and which declared files that is."""
    used = () if session is None else choose(session, SOURCE.sessions, kind="session")
    if path is None:
        if not used:
            raise ValueError(f"expected a session, such as {sessions()[0]!r}, or a path, got neither")
        return find(used[0]), used
    if str(path).startswith(("https://", "http://")):
        return str(path), used
    if used:
        return find(used[0], path=path), used
    if not Path(path).is_file():
        raise ValueError(f"expected an NWB file at the path given, found none at {os.fspath(path)}")
    return path, ()
