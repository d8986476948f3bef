"""Which sessions and assemblies there are."""
