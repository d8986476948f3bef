"""Work in processes gives what work here gives."""

from functools import partial

import numpy as np
import pytest
import torch
from working import failing, overwritten, threads

from neurovar.networks import in_workers


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_work_is_on_one_thread_and_in_order(n_jobs: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(in_workers([partial(threads, i) for i in range(5)], n_jobs)) == [(i, 1) for i in range(5)]
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="number 3"):
            list(in_workers([partial(failing, 3)], n_jobs))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_large_arrays_are_shared_but_not_written_to() -> None:
    values = np.zeros(2**18)  # 2 MB: above what joblib maps
    assert list(in_workers([partial(overwritten, values)] * 3, 2)) == [2**18] * 3
    assert not values.any()


def test_results_come_as_soon_as_they_are_there() -> None:
    results = in_workers([partial(threads, 0), partial(failing, 1)], 1)
    assert next(results) == (0, 1)
    with pytest.raises(ValueError, match="number 1"):
        next(results)
