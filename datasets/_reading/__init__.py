"""Parse files that nobody vouches for."""
