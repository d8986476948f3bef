"""The doctests of `datasets/`: pytest would import the folder by that name, which is refused."""

import doctest
from importlib import import_module
from pkgutil import iter_modules

import neurovar_datasets
import pytest


@pytest.mark.parametrize("name", [module.name for module in iter_modules(neurovar_datasets.__path__)])
def test_the_examples_of_a_dataset_run(name: str) -> None:
    assert doctest.testmod(import_module(f"neurovar_datasets.{name}")).failed == 0
