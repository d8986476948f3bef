"""Covariances of activations that are never all in memory: accumulators fed batch by batch.

    noise = LowRankAccumulator(rank=64)
    for batch in batches:  # (batch, *units)
        noise.update(batch)
    noise.covariance(), noise.mean

What several workers have each accumulated is joined with `merge`, and handed over as files with `save` and
`load_accumulator`.
"""
