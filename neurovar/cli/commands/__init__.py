"""The command `neurovar datasets`: the public sources, and recordings of one's own."""
