"""Training, evaluation and replay of the methods of the table; the README has the map."""

import os

# NumPy's BLAS is not used here. Its threads, one for each core and run, would be stopped and
# waited for at each fork of a worker. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
