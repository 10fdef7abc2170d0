"""Documents made of a run's results, in formats that other software reads: one module a format."""
