"""The doctests of `datasets/`: pytest would import the folder by that name, which is refused."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import neurovar_datasets
import pytest

MODULES = [module.name for module in walk_packages(neurovar_datasets.__path__, "neurovar_datasets.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_dataset_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0
