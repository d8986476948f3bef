"""Train a classifier; freeze it up to a layer, re-initialise the rest and retrain that under noise."""
