"""The description of a recording as a whole and area by area, and its files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from neurovar import plotting
from neurovar.cli._presenting import write_dataset
from neurovar.statistics import describe


def by_area(responses: xr.DataArray) -> dict[str, xr.Dataset]:
    """The description of all units and, where they are of several areas, of the units of each."""
    described = {"all": describe(responses, rng=0)}
    if "area" in responses.coords and responses["area"].dims == ("unit",):
        areas = responses["area"].values.astype(str)
        names = np.unique(areas)
        for area in names if len(names) > 1 else ():
            described[str(area)] = describe(responses.isel(unit=areas == area), rng=0)
    return described


def write(described: Mapping[str, xr.Dataset], stem: Path) -> tuple[Path, Path]:
    """The figure of all units, and the results: each area's in a netCDF group of its own."""
    picture, results = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".nc"))
    everything = described["all"]
    with plotting.style():
        plotting.plot_recording(everything).savefig(picture)
    write_dataset(everything, results)
    for number, (area, description) in enumerate(described.items()):
        if number:
            write_dataset(description.assign_attrs(area=area), results, group=f"area_{number}")
    return picture, results
