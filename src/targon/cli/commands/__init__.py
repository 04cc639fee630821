"""One module per command of ``targon``."""
