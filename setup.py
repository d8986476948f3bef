"""Packages are discovered; `datasets/` is installed as `neurovar_datasets`. All else stands in pyproject.toml."""

from setuptools import find_packages, setup

datasets = [
    name.replace("datasets", "neurovar_datasets", 1) for name in find_packages(include=["datasets", "datasets.*"])
]
setup(
    packages=[*find_packages(include=["neurovar", "neurovar.*"]), *datasets],
    package_dir={"neurovar": "neurovar", "neurovar_datasets": "datasets"},
)
