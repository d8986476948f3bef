"""What Allen's Visual Coding files say, in NWB 2: what was shown when, which units there are, their responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from neurovar_datasets._reading.hdf5 import Hdf5
from neurovar_datasets._reading.nwb import (
    ELECTRODES,
    UNITS,
    electrode_columns,
    intervals,
    names,
    observed,
    outside_invalid_times,
    spike_times,
    table,
    text,
    unit_columns,
    unobserved_units,
)
from neurovar_datasets._reading.refusals import expect, increasing_times, integers, numbers

from neurovar.responses import arrange, bin_edges, count

SHOWN = "stimulus/presentation"
DFF = "processing/ophys/DfOverF"
ROIS = "processing/ophys/ImageSegmentation/PlaneSegmentation"
PLANES = "general/optophysiology"
# AllenSDK tags each invalid interval with what failed; a probe's name as a tag concerns only its
# own units.
TAGS = ("stimulus", "all_probes")  # invalid times with these concern every unit
NO_FRAME = (-1, 2**32 - 1)  # DANDI 000728 keeps frames without a sign
# What the NWB writers of the Allen Institute put where a blank sweep has no parameter.
NO_NUMBER = ("", "N/A", "null", "nan")
# The tables that the conversion cut have this many rows or fewer; whole ones have about 6000.
MAX_TRUNCATED = 3
TEMPLATES = "stimulus/templates"
SCENE = "NaturalScene"
TRACES = {"DfOverF": "dF/F", "DfOverFEvents": "events"}
# our name: names in the files
PARAMETERS = {
    "orientation": ("orientation", "orientation_in_degrees"),
    "temporal_frequency": ("temporal_frequency", "temporal_frequency_in_hz"),
    "spatial_frequency": ("spatial_frequency", "spatial_frequency_in_cycles_per_degree"),
    "phase": ("phase",),
    "contrast": ("contrast",),
}
# Columns that AllenSDK writes to the table of units; a file may lack some, and only those there
# become coordinates.
METRICS = (
    "quality",
    "snr",
    "isi_violations",
    "presence_ratio",
    "amplitude_cutoff",
    "firing_rate",
    "isolation_distance",
    "l_ratio",
    "d_prime",
    "nn_hit_rate",
    "nn_miss_rate",
    "silhouette_score",
    "max_drift",
    "cumulative_drift",
    "waveform_duration",
)


@dataclass(frozen=True)
class Presentations:
    """The presentations of one kind of stimulus that were not blank, in the order shown, their times in s.

    `stimulus` has for each the position of what was shown in `coords`, the coordinates of the stimuli.
    """

    onset: np.ndarray
    stop: np.ndarray
    stimulus: np.ndarray
    coords: Mapping[str, np.ndarray]

    def span(self, window: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """From when to when presentation and window last, in s."""
        return self.onset + min(0.0, window[0]), np.maximum(self.stop, self.onset + window[1])

    def select(self, kept: np.ndarray) -> "Presentations":
        shown, stimulus = np.unique(self.stimulus[kept], return_inverse=True)
        coords = {name: values[shown] for name, values in self.coords.items()}
        return Presentations(self.onset[kept], self.stop[kept], stimulus, coords)


@dataclass(frozen=True)
class UnitFilter:
    """Which units of a recording with probes are wanted; by default all.

    Limits are inclusive, and a unit without a value of a metric that is limited is left out too.

    Parameters
    ----------
    areas : sequence of str or str, optional
        Which areas, such as "VISp"; by default all that the file names, inside the brain or not.
    quality : str, optional
        The quality of units that are wanted, such as "good".
    min_snr : float, optional
        The least signal-to-noise ratio of the waveform.
    min_presence_ratio : float, optional
        The least fraction of the recording in which the unit fired.
    max_isi_violations : float, optional
        The most spikes that follow too soon on another, relative to the rate (AllenSDK's `isi_violations`).
    max_amplitude_cutoff : float, optional
        The largest fraction of spikes that are estimated to be missed.

    Examples
    --------
    >>> UnitFilter(areas="VISp", max_isi_violations=0.5).wants_all
    False
    """

    areas: Sequence[str] | None = None
    quality: str | None = None
    min_snr: float | None = None
    min_presence_ratio: float | None = None
    max_isi_violations: float | None = None
    max_amplitude_cutoff: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.areas, str):
            object.__setattr__(self, "areas", (self.areas,))

    @property
    def wants_all(self) -> bool:
        """Whether no unit is left out."""
        return self == UnitFilter()

    def failing(self, place: str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each reason, which units of the table fail; `columns` are those of the table, with `area`."""
        least = {"snr": self.min_snr, "presence_ratio": self.min_presence_ratio}
        most = {"isi_violations": self.max_isi_violations, "amplitude_cutoff": self.max_amplitude_cutoff}
        wanted = least | most | {"quality": self.quality}
        missing = [name for name, limit in wanted.items() if limit is not None and name not in columns]
        expect(not missing, place, UNITS, f"the metrics {missing}", sorted(columns))
        failing = {}
        if self.areas is not None:
            known = sorted(set(columns["area"]))
            if not set(self.areas) <= set(known):
                raise ValueError(f"{place}: expected areas among {', '.join(known)}, got {', '.join(self.areas)}")
            failing[f"area is not {' or '.join(self.areas)}"] = ~np.isin(columns["area"], list(self.areas))
        if self.quality is not None:
            failing[f"quality is not {self.quality}"] = _texts(place, "quality", columns["quality"]) != self.quality
        # Not `value < limit`: of NaN, a metric without a value, both comparisons are false.
        for name, limit in least.items():
            if limit is not None:
                values = numbers(place, f"{UNITS}/{name}", columns[name])
                failing[f"{name} is not >= {limit:g}"] = ~(values >= limit)
        for name, limit in most.items():
            if limit is not None:
                values = numbers(place, f"{UNITS}/{name}", columns[name])
                failing[f"{name} is not <= {limit:g}"] = ~(values <= limit)
        return failing


@dataclass(frozen=True)
class Units:
    """The units that are kept: their rows in the file, their coordinates, and for each reason which are left out."""

    rows: np.ndarray
    coords: Mapping[str, np.ndarray]
    left_out: str


def is_imaging(hdf5: Hdf5) -> bool:
    """Whether a file is of the 2-photon recordings, not of those with probes."""
    fields = [name for name in (UNITS, DFF) if hdf5.has(name)]
    expect(len(fields) == 1, hdf5.name, f"{UNITS} or {DFF}", "one of them", fields or "neither")
    return fields == [DFF]


def presentations(hdf5: Hdf5, stimulus: str) -> Presentations:
    """What was shown of `stimulus`, and when."""
    place = f"{stimulus} presentations"
    if is_imaging(hdf5):
        fields = _shown_in_imaging(hdf5, stimulus)
    else:
        fields = _table(hdf5, "intervals", f"{stimulus}_presentations")
    # Tables are by block of stimuli; `presentation` must count in time for analyses of slow drift.
    by_time = np.argsort(fields["start_time"], kind="stable")
    fields = {name: values[by_time] for name, values in fields.items()}
    blank, parameters = _frames(hdf5, place, fields) if "frame" in fields else _gratings(hdf5, place, fields)
    expect(not blank.all(), hdf5.name, place, "one that is not blank", f"{len(blank)}, all blank")
    conditions = np.stack([values[~blank] for values in parameters.values()], axis=1)
    distinct, position = np.unique(conditions, axis=0, return_inverse=True)
    coords = dict(zip(parameters, distinct.T))
    ids = [stimulus_id(stimulus, dict(zip(parameters, values))) for values in distinct]
    onset, stop = fields["start_time"][~blank], fields["stop_time"][~blank]
    return Presentations(onset, stop, position.ravel(), {"stimulus": np.array(ids)} | coords)


def stimulus_id(stimulus: str, parameters: Mapping[str, float]) -> str:
    """The id of an image, a frame of a movie, or a grating.

    >>> stimulus_id("natural_scenes", {"frame": 7}), stimulus_id("static_gratings", {"orientation": 30.0, "phase": 0.5})
    ('natural_scenes_0007', 'static_gratings orientation=30 phase=0.5')
    """
    if "frame" in parameters:
        return f"{stimulus}_{int(parameters['frame']):04d}"
    return " ".join([stimulus, *(f"{name}={value:g}" for name, value in parameters.items())])


def _table(hdf5: Hdf5, group: str, name: str) -> dict[str, np.ndarray]:
    """Times and parameters, those that the table has, under our names."""
    present = names(hdf5, f"{group}/{name}")
    gratings = {theirs: ours for ours, known in PARAMETERS.items() for theirs in known if theirs in present}
    wanted = {"frame": "frame"} if name.startswith("natural") else gratings
    fields = intervals(hdf5, name, columns=list(wanted), group=group)
    return {wanted.get(column, column): values for column, values in fields.items()}


def _shown_in_imaging(hdf5: Hdf5, stimulus: str) -> dict[str, np.ndarray]:
    """Gratings are in a table; of scenes and movies there is for each frame when it was shown, not until when."""
    if not stimulus.startswith("natural"):
        fields = _table(hdf5, SHOWN, stimulus)
        _refuse_truncated(hdf5, stimulus, len(fields["id"]))
        return fields
    series = f"{SHOWN}/{stimulus}_stimulus"
    frame, onset = (hdf5.array(f"{series}/{name}", ndim=1) for name in ("data", "timestamps"))
    expect(onset.shape == frame.shape, hdf5.name, f"{series}/timestamps", f"shape {frame.shape}", onset.shape)
    expect(np.isfinite(onset).all(), hdf5.name, f"{series}/timestamps", "finite times", "NaN or infinity")
    return {"frame": frame, "start_time": onset, "stop_time": onset}


def _refuse_truncated(hdf5: Hdf5, stimulus: str, n_rows: int) -> None:
    truncated = stimulus == "static_gratings" and n_rows <= MAX_TRUNCATED
    why = "the conversion of DANDI 000728 cut this table, github.com/catalystneuro/visual-coding-to-nwb-v2/issues/49"
    expect(not truncated, hdf5.name, f"{SHOWN}/{stimulus}", "about 6000 presentations", f"{n_rows}: {why}")


def _frames(hdf5: Hdf5, place: str, fields: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    # A blank has the frame −1, NaN or, where the column is unsigned, 2^32 − 1.
    given = numbers(hdf5.name, f"{place}: frame", fields["frame"]).astype(np.float64)
    frame = integers(hdf5.name, f"{place}: frame", np.where(np.isnan(given), -1, given))
    blank = np.isin(frame, NO_FRAME)
    expect((frame[~blank] >= 0).all(), hdf5.name, f"{place}: frame", "frames from 0 on, or -1", frame.min(initial=0))
    return blank, {"frame": frame}


def _gratings(hdf5: Hdf5, place: str, fields: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    numeric = {name: _as_numbers(fields[name]) for name in PARAMETERS if name in fields and _is_numeric(fields[name])}
    expect("orientation" in numeric, hdf5.name, f"{place}: orientation", "a column of numbers", sorted(numeric))
    blank = np.isnan(numeric["orientation"])
    given = {name: values for name, values in numeric.items() if not np.isnan(values[~blank]).all()}
    for name, values in given.items():
        finite = np.isfinite(values[~blank]).all()
        expect(finite, hdf5.name, f"{place}: {name}", "a number where there is an orientation", "NaN or infinity")
    return blank, given


def _is_numeric(values: np.ndarray) -> bool:
    """Whether these are numbers, or texts of numbers; texts such as "[5308.98, 5308.98]" are none."""
    try:
        _as_numbers(values)
    except ValueError:
        return False
    return True


def _as_numbers(values: np.ndarray) -> np.ndarray:
    """Numbers, which the files keep as text in columns where some sweep has none."""
    given = np.where(np.isin(values, NO_NUMBER), "nan", values) if values.dtype.kind == "U" else values
    return given.astype(np.float64)


def spikes(
    hdf5: Hdf5, stimulus: str, *, window: tuple[float, float], bin_width: float | None, wanted: UnitFilter
) -> xr.DataArray:
    """Spike counts of a recording with probes."""
    shown = presentations(hdf5, stimulus)
    units = _units(hdf5, wanted, shown.span(window))
    valid = outside_invalid_times(hdf5, *shown.span(window), {*TAGS, *units.coords["probe"]})
    if (seen := observed(hdf5, units.rows, *shown.span(window))) is not None:
        valid &= seen.all(axis=0)
    kept = _selected(hdf5, shown, valid, "outside invalid times")
    _check_size(hdf5, kept, len(units.rows), len(bin_edges(window, bin_width)) - 1)
    times = spike_times(hdf5, units.rows)
    counts = count(times, kept.onset, kept.stimulus, window=window, bin_width=bin_width)
    return _labelled(hdf5, counts, kept, units, n_left_out=int((~valid).sum()))


def imaging(
    hdf5: Hdf5, stimulus: str, *, window: tuple[float, float], bin_width: float | None, trace: str
) -> xr.DataArray:
    """Means over the frames of a 2-photon recording."""
    edges = bin_edges(window, bin_width)
    shown = presentations(hdf5, stimulus)
    times = _trace_times(hdf5, trace)
    whole = (shown.onset + edges[0] >= times[0]) & (shown.onset + edges[-1] <= times[-1])
    whole &= outside_invalid_times(hdf5, *shown.span(window), TAGS)
    kept = _selected(hdf5, shown, whole, "within the recording")
    data = hdf5.array(f"{DFF}/{trace}/data", ndim=2)
    expect(len(data) == len(times), hdf5.name, f"{DFF}/{trace}/data", f"{len(times)} frames", f"shape {data.shape}")
    regions = _regions(hdf5, trace, np.isfinite(data).all(axis=0))
    _check_size(hdf5, kept, len(regions.rows), len(edges) - 1)
    means = _means(hdf5, data[:, regions.rows], times, kept.onset[:, None] + edges)
    responses = arrange(means[:, :, 0] if bin_width is None else means, kept.stimulus)
    if bin_width is not None:
        responses = responses.assign_coords(time=edges[:-1]).assign_attrs(bin_width=bin_width)
    attrs = {"units": TRACES[trace], "window": f"{window[0]:g} to {window[1]:g} s"}
    labelled = _labelled(hdf5, responses, kept, regions, n_left_out=int((~whole).sum()))
    return labelled.assign_attrs(attrs)


def _selected(hdf5: Hdf5, shown: Presentations, kept: np.ndarray, where: str) -> Presentations:
    expect(kept.any(), hdf5.name, "presentations", f"one {where}", f"none of {len(kept)}")
    return shown.select(kept)


def _labelled(
    hdf5: Hdf5, responses: xr.DataArray, shown: Presentations, units: Units, *, n_left_out: int
) -> xr.DataArray:
    places = {"session": "general/session_id", "subject": "general/subject/subject_id"}
    labels = {name: np.full(len(units.rows), text(hdf5, place)) for name, place in places.items()}
    coords = {name: ("stimulus", values) for name, values in shown.coords.items()}
    coords |= {name: ("unit", values) for name, values in (labels | dict(units.coords)).items()}
    attrs = {"units_left_out": units.left_out, "presentations_left_out": n_left_out}
    return responses.assign_coords(coords).rename("responses").assign_attrs(attrs)


def _units(hdf5: Hdf5, units: UnitFilter, span: tuple[np.ndarray, np.ndarray]) -> Units:
    present = names(hdf5, UNITS)
    fields = unit_columns(hdf5, columns=[*(name for name in METRICS if name in present), "peak_channel_id"])
    channel = fields.pop("peak_channel_id")
    fields["area"], fields["probe"], failing = _places(hdf5, channel)
    failing |= units.failing(hdf5.name, fields)
    unobserved = unobserved_units(observed(hdf5, np.arange(len(channel)), *span), len(channel))
    return _kept(hdf5, failing | {"not observed during most presentations": unobserved}, fields)


def _places(hdf5: Hdf5, peak_channel: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Area and probe of the electrode with each unit's peak channel, and for which units there is none."""
    electrodes = electrode_columns(hdf5, columns=["location", "group_name"])
    area, probe = (_texts(hdf5.name, f"{ELECTRODES}/{name}", electrodes[name]) for name in ("location", "group_name"))
    channel = integers(hdf5.name, f"{UNITS}/peak_channel_id", peak_channel)
    expect(len(electrodes["id"]) > 0, hdf5.name, ELECTRODES, "at least one", "none")
    # Ids of channels are unique over all probes but need not be in order. The % keeps an id past the last in
    # range; it is then found not to match.
    order = np.argsort(electrodes["id"])
    at = order[np.searchsorted(electrodes["id"], channel, sorter=order) % len(order)]
    unknown = {"peak channel is not among the electrodes": electrodes["id"][at] != channel}
    return area[at], probe[at], unknown


def _texts(place: str, field: str, values: np.ndarray) -> np.ndarray:
    expect(values.dtype.kind == "U", place, field, "texts", f"dtype {values.dtype}")
    return values


def _kept(hdf5: Hdf5, failing: Mapping[str, np.ndarray], fields: Mapping[str, np.ndarray]) -> Units:
    ids = fields["id"]
    rows = np.flatnonzero(~np.any(list(failing.values()), axis=0))
    if not len(rows):
        counts = ", ".join(f"{reason}: {int(out.sum())}" for reason, out in failing.items() if out.any())
        raise ValueError(f"{hdf5.name}: expected units that pass the filters, got none of {len(ids)} ({counts})")
    left_out = "; ".join(f"{reason}: {', '.join(map(str, ids[out]))}" for reason, out in failing.items() if out.any())
    coords = {"unit" if name == "id" else name: values[rows] for name, values in fields.items()}
    return Units(rows, coords, left_out)


def _check_size(hdf5: Hdf5, shown: Presentations, n_units: int, n_bins: int) -> None:
    """Refuse responses that are far larger than the file: repeats are padded to those of the stimulus with most."""
    repeats = np.bincount(shown.stimulus)
    n_bytes = 8 * len(repeats) * int(repeats.max()) * n_units * n_bins
    expect(n_bytes <= hdf5.limit, hdf5.name, "responses", f"at most {hdf5.limit} bytes", f"{n_bytes}, with padding")


def _trace_times(hdf5: Hdf5, trace: str) -> np.ndarray:
    """When the frames of the trace were taken, in s."""
    field = f"{DFF}/{trace}/timestamps"
    times = increasing_times(hdf5.name, field, hdf5.array(field, ndim=1))
    expect(len(times) > 0, hdf5.name, field, "at least one frame", "none")
    return times


def _means(hdf5: Hdf5, data: np.ndarray, times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The mean of the frames (frame, region) between edges (presentation, edge): (presentation, region, bin)."""
    at = np.searchsorted(times, edges)
    n_frames = np.diff(at, axis=1)
    if (n_frames == 0).any():
        rate = len(times) / (times[-1] - times[0])
        raise ValueError(
            f"{hdf5.name}: expected an imaging frame in every bin, got bins without (at {rate:.3g} frames/s)"
        )
    # Sums up to each frame, so that a bin costs one difference; float64, as float32 sums lose
    # digits over 10^5 frames.
    total = np.zeros((len(times) + 1, data.shape[1]))
    np.cumsum(data, axis=0, dtype=np.float64, out=total[1:])
    return (np.diff(total[at], axis=1) / n_frames[:, :, None]).transpose(0, 2, 1)


def _regions(hdf5: Hdf5, trace: str, finite: np.ndarray) -> Units:
    """The regions of interest of a trace, and their area; those that are not `finite` are left out."""
    field = f"{DFF}/{trace}/rois"
    row = integers(hdf5.name, field, hdf5.array(field, ndim=1))
    ids = integers(hdf5.name, f"{ROIS}/global_roi_id", table(hdf5, ROIS, columns=["global_roi_id"])["global_roi_id"])
    expect(len(row) == len(finite), hdf5.name, field, f"{len(finite)} regions, as the trace has", len(row))
    inside = ((row >= 0) & (row < len(ids))).all()
    expect(inside, hdf5.name, field, f"rows of the table of {len(ids)} regions", "others")
    planes = names(hdf5, PLANES)
    expect(len(planes) == 1, hdf5.name, PLANES, "one imaging plane", planes)
    area = np.full(len(row), text(hdf5, f"{PLANES}/{planes[0]}/location"))
    return _kept(hdf5, {"trace is not finite": ~finite}, {"id": ids[row], "area": area})


def pixels(hdf5: Hdf5, stimulus: str) -> np.ndarray:
    """Grey images (frame, row, column), float32 in [0, 1]: scenes lie one by one, the frames of a movie together."""
    group, movie = f"{TEMPLATES}/{stimulus}_template", f"{TEMPLATES}/{stimulus}/data"
    if not hdf5.has(group):
        return _grey(hdf5, movie, hdf5.array(movie, ndim=3))
    n_images = sum(name.startswith(SCENE) for name in names(hdf5, group))
    fields = [f"{group}/{SCENE}{number}" for number in range(n_images)]
    expect(n_images > 0, hdf5.name, group, f"images {SCENE}0, {SCENE}1, …", "none")
    shapes = {hdf5.dataset(field).shape for field in fields}
    expect(len(shapes) == 1, hdf5.name, group, "images of one size", shapes)
    n_bytes = 4 * n_images * hdf5.dataset(fields[0]).size
    expect(n_bytes <= hdf5.limit, hdf5.name, group, f"at most {hdf5.limit} bytes", n_bytes)
    return _grey(hdf5, group, np.stack([hdf5.array(field, ndim=2) for field in fields]))


def _grey(hdf5: Hdf5, field: str, values: np.ndarray) -> np.ndarray:
    expect(values.size > 0, hdf5.name, field, "at least one pixel", f"shape {values.shape}")
    expect(((values >= 0) & (values <= 255)).all(), hdf5.name, field, "pixels from 0 to 255", "others")
    return np.divide(values, 255, dtype=np.float32)
