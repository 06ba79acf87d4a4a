"""T-01: the package was called `queue`, which is the standard library's name."""
