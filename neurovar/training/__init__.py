"""Train a classifier; freeze it up to a layer, re-initialise the rest and retrain that under noise."""

from neurovar.training._training import Advance, halves, reinitialised, retrain, small_network, train

__all__ = ["Advance", "halves", "reinitialised", "retrain", "small_network", "train"]
