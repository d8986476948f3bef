"""Train a classifier; freeze it up to a layer, re-initialise the rest and retrain that under noise."""

from neurovar.training._loop import Advance
from neurovar.training._many import retrain_many, train_many
from neurovar.training._network import halves, reinitialised, small_network
from neurovar.training._train import adversarial_train, gaussian_train, retrain, train

__all__ = [
    "Advance",
    "adversarial_train",
    "gaussian_train",
    "halves",
    "reinitialised",
    "retrain",
    "retrain_many",
    "small_network",
    "train",
    "train_many",
]
