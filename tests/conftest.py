"""Before any test module imports NumPy."""

import agents  # noqa: F401 - it says how many threads NumPy's BLAS may have
