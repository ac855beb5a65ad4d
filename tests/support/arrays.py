"""Arrays on disk."""

import numpy as np


def read_arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
