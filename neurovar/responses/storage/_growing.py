"""Write a store a few stimuli at a time, and go on where a killed writer stopped."""

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout

from neurovar.responses._rules import DIMS, validate_form
from neurovar.responses.storage._chunks import json_object, key_of, reading
from neurovar.responses.storage._form import CHUNK_BYTES, VARIABLE, chunk_shape
from neurovar.responses.storage._writing import check_new, plain_dataset, write_zarr

CHECKPOINT = "checkpoint.json"
ENDLESS = 1 << 62  # stimuli: the shape of chunks does not depend on how many there will be


@contextmanager
def grow(
    path: str | os.PathLike[str], *, settings: Mapping[str, Any], chunk_bytes: int = CHUNK_BYTES
) -> Iterator["Growing"]:
    """A new store that takes stimuli as they come and appears under its name only when it is whole.

    Until then it grows in `.NAME.partial` beside it. If that is there, it was left by a writer that was killed, and
    this one goes on with it: `n_written` stimuli are on disk, and `state` is what was given to `append` after the
    first `start` of them, which is where to begin again; `latest` is what was given to it last. At most one chunk is
    made anew.

    Parameters
    ----------
    path : path
        The folder to write, where nothing is yet.
    settings : mapping
        What makes the values, as JSON can hold it; a store that was begun with others is refused.
    chunk_bytes : int, optional
        The most that one chunk takes unpacked: as many whole stimuli as fit or, of a long one, repeats.

    Yields
    ------
    Growing
        The store, to which stimuli are appended until it is finished.

    Raises
    ------
    ValueError
        If there is something at `path`, its folder cannot be written, another process is writing it, or it was begun
        with other settings (saying which differ).

    Examples
    --------
    >>> import tempfile
    >>> from neurovar.responses import open_zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with grow(f"{folder}/recording.zarr", settings={"seed": 0}) as store:
    ...         for batch in range(3):
    ...             store.append(np.full((2, 1, 5), batch, np.float32), {"n_batches": batch + 1})
    ...         store.finish({"stimulus": range(6)}, {"units": "activation"})
    ...     open_zarr(f"{folder}/recording.zarr")[:, 0, 0].values.tolist()
    [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    """
    path = Path(path)
    check_new(path, chunk_bytes)
    folder = path.with_name(f".{path.name}.partial")
    lock = FileLock(folder / "lock", timeout=0)
    try:
        (folder / "store" / VARIABLE).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"{path}: expected to be its only writer, got another that is at work") from error
    except OSError as error:
        raise ValueError(f"{path}: expected a folder that can be written, got {error}") from error
    plain = json.loads(json.dumps({"chunk_bytes": chunk_bytes, **settings}))
    store = Growing(path, folder, plain, chunk_bytes)
    try:
        store.resume()
        yield store
    finally:
        lock.release()
        if store.finished or not (folder / CHECKPOINT).is_file():
            shutil.rmtree(folder, ignore_errors=True)


class Growing:
    """A store that grows, as `grow` makes it.

    Parameters
    ----------
    path : path
        Where the store appears when it is whole.
    folder : path
        Where it grows until then.
    settings : mapping
        What makes the values, as JSON can hold it.
    chunk_bytes : int
        The most that one chunk takes unpacked.

    Attributes
    ----------
    finished : bool
        Whether the store is whole and under its name.
    n_written : int
        The number of stimuli on disk.
    start : int
        The stimulus from which a caller that goes on appends: what is on disk already is passed over.
    state : dict or None
        What the caller said with the stimulus before `start`; None at the beginning.
    latest : dict or None
        What the caller said last.

    Examples
    --------
    >>> from neurovar.responses import grow  # opens and closes a store
    """

    # Chunks are written when they are full, and the caller's batches end elsewhere. A writer that goes on must begin
    # at the end of one of its batches: the last that is wholly on disk (`start`, with `state`), of which the stimuli up
    # to `n_written` are on disk already and passed over.
    def __init__(self, path: Path, folder: Path, settings: Mapping[str, Any], chunk_bytes: int) -> None:
        self._path, self._folder, self._settings, self._chunk_bytes = path, folder, settings, chunk_bytes
        self.finished = False
        self.n_written, self.start = 0, 0
        self.state: dict[str, Any] | None = None
        self.latest: dict[str, Any] | None = None
        self._form: list[Any] = []  # repeats, units, dtype
        self._later: list[tuple[int, dict[str, Any]]] = []  # states after stimuli that are not all written
        self._n_appended, self._n_kept = 0, 0
        self._filling = np.empty((0, 0, 0))  # the chunk that is being filled, and how far it is
        self._n_filled = 0

    def resume(self) -> None:
        """Take up the checkpoint that is there, if it was made with the same settings."""
        if not (self._folder / CHECKPOINT).exists():
            return
        with reading(self._folder, CHECKPOINT):
            kept = json_object(self._folder, CHECKPOINT)
            before = kept["settings"]
            self.n_written, self.start, self.state = int(kept["n_written"]), int(kept["start"]), kept["state"]
            self._form, self.latest = kept["form"], kept["latest"]
            self._n_appended, self._n_kept = self.start, self.n_written
        names = [name for name in {**before, **self._settings} if before.get(name) != self._settings.get(name)]
        if names:
            other = ", ".join(f"{name} {self._settings.get(name)!r} instead of {before.get(name)!r}" for name in names)
            raise ValueError(
                f"{self._path}: expected the settings that this store was begun with, got {other}; "
                f"give those, or delete {self._folder} to begin anew"
            )

    def check(self, responses: xr.DataArray) -> None:
        """Raise ValueError if responses with these coordinates and attributes could not be stored."""
        validate_form(responses, DIMS)
        plain_dataset(responses, self._chunk_bytes)

    def append(self, values: np.ndarray, state: Mapping[str, Any]) -> None:
        """The next stimuli, (stimulus, repeat, unit), and where the caller stands after them, as JSON can hold it.

        Parameters
        ----------
        values : array
            (stimulus, repeat, unit).
        state : mapping
            Where the caller stands.

        Raises
        ------
        ValueError
            For values of another number of repeats or units, or another dtype, than before.
        OSError
            If they cannot be written; what is on disk stays and can be gone on with.
        """
        form = [*values.shape[1:], values.dtype.str]
        if self._form not in ([], form):
            raise ValueError(f"{self._path}: expected values of (repeat, unit, dtype) {self._form}, got {form}")
        self._form = form
        if not len(self._filling):
            self._filling = np.empty((self._chunks(ENDLESS)[0], *values.shape[1:]), values.dtype)
        n_known = self.n_written + self._n_filled - self._n_appended  # of these, on disk from the writer before
        self._n_appended += len(values)
        self.latest = dict(state)
        self._later.append((self._n_appended, self.latest))
        values = values[max(n_known, 0) :]
        while len(values):
            room = self._filling[self._n_filled :]
            room[: len(values)] = values[: len(room)]
            self._n_filled += min(len(room), len(values))
            values = values[len(room) :]
            if self._n_filled == len(self._filling):
                self._write_filled()
                self._write_checkpoint()

    def finish(self, coords: Mapping[str, Any], attrs: Mapping[str, Any]) -> None:
        """Write what is left, with coordinates and attributes, and let the store appear under its name.

        Parameters
        ----------
        coords : mapping
            The coordinates, as a DataArray takes them; `stimulus` is wanted.
        attrs : mapping
            The attributes.

        Raises
        ------
        ValueError
            If they do not fit the values, or cannot be stored.
        """
        import dask.array as da

        n_stimuli = self.n_written + self._n_filled
        if not n_stimuli:
            raise ValueError(f"{self._path}: expected at least one stimulus, got none")
        # only the form of the values is needed: their chunks are written already
        lazy = da.zeros((n_stimuli, *self._form[:2]), dtype=self._form[2], chunks=self._chunks(n_stimuli))
        responses = xr.DataArray(lazy, coords, DIMS, attrs=dict(attrs)).rename(None)  # not dask's name
        self.check(responses)
        if self._n_filled:
            self._write_filled()
        self._write_metadata(plain_dataset(responses, self._chunk_bytes))
        (self._folder / "store").rename(self._path)
        self.finished = True

    def _chunks(self, n_stimuli: int) -> tuple[int, ...]:
        n_repeats, n_units, dtype = self._form
        shape = (n_stimuli, n_repeats, n_units)
        return chunk_shape(shape, np.dtype(dtype).itemsize, chunk_bytes=self._chunk_bytes)

    def _write_filled(self) -> None:
        """The chunk that was filled, whole or the last one; what a last chunk lacks is zeros, which no reader sees."""
        rows = self._filling if self.n_written else self._filling[: self._n_filled]
        rows[self._n_filled :] = 0
        first = self.n_written // len(rows)
        _, n_repeats, n_units = self._chunks(ENDLESS)
        for i, repeat in enumerate(range(0, rows.shape[1], n_repeats)):
            for j, unit in enumerate(range(0, rows.shape[2], n_units)):
                part = rows[:, repeat : repeat + n_repeats, unit : unit + n_units]
                chunk = np.zeros((len(rows), n_repeats, n_units), rows.dtype)
                chunk[:, : part.shape[1], : part.shape[2]] = part
                key = key_of((first, i, j))
                self._write(self._folder / "store" / VARIABLE / key, zlib.compress(chunk.tobytes(), 1))
        self.n_written += self._n_filled
        self._n_filled = 0

    def _write_checkpoint(self) -> None:
        while self._later and self._later[0][0] <= self.n_written:
            self.start, self.state = self._later.pop(0)
        content = {
            "settings": self._settings,
            "form": self._form,
            "n_written": self.n_written,
            "start": self.start,
            "state": self.state,
            "latest": self.latest,
        }
        self._write(self._folder / CHECKPOINT, json.dumps(content).encode())
        self._n_kept = self.n_written

    def _write(self, file: Path, content: bytes) -> None:
        """A file that is whole or not there, whatever happens."""
        unfinished = file.with_name(f".{file.name}.unfinished")
        try:
            with unfinished.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # on disk before its name is: a crash of the machine leaves no empty file
            unfinished.replace(file)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            kept = f"{self._n_kept} stimuli are kept in {self._folder}; run it again to go on"
            raise OSError(error.errno, f"{error.strerror}; {kept}", str(file)) from error

    def _write_metadata(self, dataset: xr.Dataset) -> None:
        """Everything but the chunks of responses, written elsewhere and moved beside them."""
        elsewhere, store = self._folder / "metadata", self._folder / "store"
        shutil.rmtree(elsewhere, ignore_errors=True)
        write_zarr(dataset, elsewhere, metadata_only=True)
        for file in (elsewhere / VARIABLE).iterdir():
            file.replace(store / VARIABLE / file.name)
        (elsewhere / VARIABLE).rmdir()
        for item in elsewhere.iterdir():
            if (store / item.name).is_dir():
                shutil.rmtree(store / item.name)
            item.replace(store / item.name)
