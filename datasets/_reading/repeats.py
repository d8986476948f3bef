"""Refuse repeats that cannot be those of a recording."""

import numpy as np
from neurovar_datasets._fetching.source import AnyPath
from neurovar_datasets._reading.refusals import expect

# Below 16 million values (64 MiB as float32) padding harms nobody, however uneven the repeats are.
MAX_VALUES = 1 << 24
# Real recordings stay below this; a file with one id n times and n others once would need n² room.
MAX_PADDING = 4


def check_repeats(path: AnyPath, field: str, ids: np.ndarray, n_units: int) -> None:
    """Raise CorruptDataError where, of the ids (presentation,), one has so many repeats that padding takes far more."""
    n_repeats = np.unique(ids, return_counts=True)[1]
    padded = len(n_repeats) * int(n_repeats.max()) * n_units
    got = f"{n_repeats.min()} to {n_repeats.max()}"
    fits = padded <= max(MAX_VALUES, MAX_PADDING * len(ids) * n_units)
    expect(fits, path, field, "about as many repeats of each stimulus", got)
