"""Record a network's layers as responses (stimulus, repeat, unit): in memory, batch by batch, or to a Zarr store."""
