"""Fast kernels over CT volumes as pure functions on NumPy arrays."""
