"""A store that grows: the same as one saved at once, whatever the pieces and wherever it was killed."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock

from neurovar import responses

SHAPE = (11, 2, 5)
CHUNK_BYTES = 3 * 2 * 5 * 4


def recording(shape: tuple[int, ...] = SHAPE) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    coords = {"stimulus": [f"i{'x' * i}" for i in range(shape[0])], "layer": ("unit", ["a"] * shape[2])}
    return xr.DataArray(values, dims=responses.DIMS, coords=coords, attrs={"units": "activation", "n": (1, 2)})


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def saved(path: Path, da: xr.DataArray, chunk_bytes: int = CHUNK_BYTES) -> dict[str, bytes]:
    responses.save(da, path, chunk_bytes=chunk_bytes)
    return tree(path)


def grown(
    path: Path,
    da: xr.DataArray,
    size: int,
    *,
    until: int | None = None,
    settings: dict[str, Any] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Path:
    """Append pieces of so many stimuli from where the store stands; fail when `until` pieces are appended."""
    with responses.grow(path, settings=settings or {"seed": 0}, chunk_bytes=chunk_bytes) as store:
        done = store.state["done"] if store.state else 0
        assert done == store.start <= store.n_written
        for number, start in enumerate(range(done, len(da), size)):
            if number == until:
                raise RuntimeError("killed")
            piece = da.values[start : start + size]
            store.append(piece, {"done": start + len(piece)})
        store.finish(da.coords, da.attrs)
    return path


def partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 11])
@pytest.mark.parametrize("chunk_bytes", [8, 40, CHUNK_BYTES, responses.CHUNK_BYTES])
def test_it_is_the_store_that_save_writes(tmp_path: Path, size: int, chunk_bytes: int) -> None:
    da = recording()
    got = tree(grown(tmp_path / "grown.zarr", da, size, chunk_bytes=chunk_bytes))
    assert got == saved(tmp_path / "saved.zarr", da, chunk_bytes)
    xr.testing.assert_identical(responses.open_zarr(tmp_path / "grown.zarr").compute(), da)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grown.zarr", "saved.zarr"]


@pytest.mark.parametrize("size", [1, 2, 4, 7])
@pytest.mark.parametrize("until", [1, 2, 5])
def test_a_store_goes_on_where_it_stopped(tmp_path: Path, size: int, until: int) -> None:
    da, path = recording(), tmp_path / "grown.zarr"
    n_stopped = 0
    while n_stopped < 2 and not path.exists():  # a writer may be stopped again
        try:
            grown(path, da, size, until=until)
        except RuntimeError:
            n_stopped += 1
            assert not path.exists()
    assert bool(n_stopped) == (until * size < len(da))
    if not path.exists():
        grown(path, da, size)
    assert tree(path) == saved(tmp_path / "saved.zarr", da)
    assert not partial(path).exists()


def test_only_what_was_not_written_is_appended_anew(tmp_path: Path) -> None:
    da, path = recording(), tmp_path / "grown.zarr"
    with pytest.raises(RuntimeError, match="killed"):
        grown(path, da, 2, until=5)
    with responses.grow(path, settings={"seed": 0}, chunk_bytes=CHUNK_BYTES) as store:
        assert (store.n_written, store.start, store.state) == (9, 8, {"done": 8})
        before = tree(partial(path) / "store")
        store.append(np.full((2, 2, 5), 7, np.float32), {"done": 10})
        assert tree(partial(path) / "store") == before
        store.append(da.values[10:], {"done": 11})
        store.finish(da.coords, da.attrs)
    opened = responses.open_zarr(path).values
    np.testing.assert_array_equal(opened[:9], da.values[:9])
    assert (opened[9] == 7).all()


def test_a_writer_that_stops_before_the_first_chunk_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        grown(tmp_path / "grown.zarr", recording(), 1, until=2)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_stopped_while_it_finished_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    da, path = recording(), tmp_path / "grown.zarr"

    def fail(self: Path, target: Path) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Path, "rename", fail)
        grown(path, da, 4)
    assert not path.exists()
    assert tree(grown(path, da, 4)) == saved(tmp_path / "saved.zarr", da)


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    da, path = recording(), tmp_path / "grown.zarr"
    with pytest.raises(RuntimeError, match="killed"):
        grown(path, da, 4, until=2, settings={"seed": 0, "layers": ("a",), "old": 1})
    match = (
        r"grown\.zarr: expected the settings that this store was begun with, got seed 1 instead of 0, old None instead "
        r"of 1, new 2 instead of None; give those, or delete .*\.grown\.zarr\.partial to begin anew"
    )
    with pytest.raises(ValueError, match=match):
        grown(path, da, 4, settings={"seed": 1, "layers": ["a"], "new": 2})
    assert tree(grown(path, da, 4, settings={"seed": 0, "layers": ["a"], "old": 1})) == saved(tmp_path / "s.zarr", da)


def test_other_chunks_are_other_settings(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        grown(tmp_path / "grown.zarr", recording(), 4, until=2)
    with pytest.raises(ValueError, match="got chunk_bytes 40 instead of 120"):
        grown(tmp_path / "grown.zarr", recording(), 4, chunk_bytes=40)


def test_values_of_another_form_are_refused(tmp_path: Path) -> None:
    with responses.grow(tmp_path / "grown.zarr", settings={}) as store:
        store.append(np.ones((1, 2, 5), np.float32), {})
        for other in (np.ones((1, 2, 6), np.float32), np.ones((1, 2, 5))):
            with pytest.raises(ValueError, match=r"expected values of \(repeat, unit, dtype\) \[2, 5, '<f4'\], got"):
                store.append(other, {})


def test_a_store_of_nothing_is_refused(tmp_path: Path) -> None:
    match = r"grown\.zarr: expected at least one stimulus, got none"
    with responses.grow(tmp_path / "grown.zarr", settings={}) as store, pytest.raises(ValueError, match=match):
        store.finish({}, {})
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_stored_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with responses.grow(tmp_path / "grown.zarr", settings={}) as store:
        store.check(recording())
        with pytest.raises(ValueError, match="expected names of coordinates of letters"):
            store.check(recording().assign_coords({"a/b": ("unit", range(5))}))
        with pytest.raises(ValueError, match="expected dims"):
            store.check(recording()[0])


def test_ids_that_come_twice_are_refused_at_the_end(tmp_path: Path) -> None:
    da, path = recording(), tmp_path / "grown.zarr"
    with pytest.raises(ValueError, match="expected unique stimulus ids"):
        grown(path, da.assign_coords(stimulus=["a"] * 11), 4)
    assert not path.exists()


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    path = tmp_path / "grown.zarr"
    {"file": lambda: path.write_text("mine"), "folder": path.mkdir, "link": lambda: path.symlink_to("nowhere")}[there]()
    with pytest.raises(ValueError, match=r"grown\.zarr: expected a path where nothing is yet"):
        grown(path, recording(), 4)
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected an existing folder to write into, got"):
        grown(tmp_path / "nowhere" / "grown.zarr", recording(), 4)
    partial(tmp_path / "grown.zarr").write_text("in the way")
    with pytest.raises(ValueError, match=r"grown\.zarr: expected a folder that can be written, got .*Not a directory"):
        grown(tmp_path / "grown.zarr", recording(), 4)
    with pytest.raises(ValueError, match="expected chunk_bytes from 1 to 268435456, got 0"):
        grown(tmp_path / "other.zarr", recording(), 4, chunk_bytes=0)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "grown.zarr"
    partial(path).mkdir()
    with FileLock(partial(path) / "lock"):
        with pytest.raises(
            ValueError, match=r"grown\.zarr: expected to be its only writer, got another that is at work"
        ):
            grown(path, recording(), 4)
        assert partial(path).exists()
    grown(path, recording(), 4)


def test_a_full_disk_says_what_is_kept_and_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    da, path, sync = recording(), tmp_path / "grown.zarr", os.fsync
    left = iter([True] * 5 + [False])

    def full(descriptor: int) -> None:
        if not next(left, True):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match=r"No space left .* 6 stimuli are kept in .*partial"),
    ):
        patch.setattr(os, "fsync", full)
        grown(path, da, 4)
    assert not list(partial(path).rglob("*.unfinished"))
    assert tree(grown(path, da, 4)) == saved(tmp_path / "saved.zarr", da)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "grown.zarr"
    with pytest.raises(RuntimeError, match="killed"):
        grown(path, recording(), 4, until=2)
    (partial(path) / "checkpoint.json").write_text("{")
    with pytest.raises(ValueError, match=r"\.grown\.zarr\.partial: checkpoint\.json: "):
        grown(path, recording(), 4)
