"""Helpers for tests of saliency methods."""

from contextlib import contextmanager

import flax.linen as nn


@contextmanager
def traced_rows():
    """The number of rows of each call of a model that is traced inside the block."""
    rows = []

    def record(call, arguments, options, context):
        if context.method_name == "__call__" and context.module.path == ():
            rows.append(arguments[0].shape[0])
        return call(*arguments, **options)

    with nn.intercept_methods(record):
        yield rows


def limited(method, rows):
    """The method with another `max_rows`, inside all wrappers."""
    if hasattr(method, "method"):
        return type(method)(**(vars(method) | {"method": limited(method.method, rows)}))
    return type(method)(**(vars(method) | {"max_rows": rows}))
