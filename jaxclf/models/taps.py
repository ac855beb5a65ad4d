"""Outputs of the modules inside a Linen model, by path such as "block/conv2"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from jaxclf.models.calling import get_mode
from jaxclf.types import Array, Logits, Variables

# Outputs leave the model, and perturbations enter it, through variable collections, so that modules under `nn.remat`
# and `nn.jit` are found like any others. Those inside `nn.scan` and `nn.vmap` are not: they have no single output.
OUTPUTS, PERTURBATIONS = "tapped_outputs", "tapped_perturbations"
NAME = "(output)"  # of a module's output in the collections: no module can have this name


@contextmanager
def intercept_outputs(hook: Callable[[nn.Module, str, Any], Any]) -> Iterator[None]:
    """Replace the output of each method of a Linen module by `hook(module, method_name, output)` inside the context."""

    def intercept(method, args, kwargs, context):
        return hook(context.module, context.method_name, method(*args, **kwargs))

    with nn.intercept_methods(intercept):
        yield


def apply_with_taps(
    model: nn.Module,
    variables: Variables,
    images: Array,
    where: Callable[[nn.Module], bool],
    perturbations: Mapping[str, Array] | None = None,
) -> tuple[Logits, dict[str, tuple[Array, ...]]]:
    """Apply a model in inference mode and return the outputs of some modules too.

    Args:
        model: A Linen module.
        variables: Its variables.
        images: Images [b, ...].
        where: Selects the modules to tap.
        perturbations: Arrays by path that are added to the outputs of tapped modules.

    Returns:
        The logits, and the outputs of each call of the tapped modules by path.
    """
    perturbations = perturbations or {}
    paths = []

    def tap(module: nn.Module, method: str, output: Any) -> Any:
        if method != "__call__" or not module.path or not isinstance(output, jax.Array) or not where(module):
            return output
        path = "/".join(module.path)
        if path in perturbations:
            output = output + module.get_variable(PERTURBATIONS, NAME)
        if module.sow(OUTPUTS, NAME, output):
            paths.append(path)
        return output

    changes = unflatten_dict({(*path.split("/"), NAME): array for path, array in perturbations.items()})
    given = {**variables, PERTURBATIONS: changes} if perturbations else variables
    with intercept_outputs(tap):
        logits, state = model.apply(given, images, **get_mode(model, False), mutable=[OUTPUTS])
    outputs: dict[str, Any] = {
        "/".join(path[:-1]): calls for path, calls in flatten_dict(state.get(OUTPUTS, {})).items()
    }
    # By last call. Where `nn.jit` reuses a trace, `tap` is not called; such modules come last.
    order = {path: place for place, path in enumerate(paths)}
    return logits, dict(sorted(outputs.items(), key=lambda item: order.get(item[0], len(paths))))


def trace_outputs(
    model: nn.Module, variables: Variables, images: Array, where: Callable[[nn.Module], bool] = lambda module: True
) -> dict[str, tuple[jax.ShapeDtypeStruct, ...]]:
    """Return shapes and dtypes of the outputs of modules, by path in the order in which they end, without computing."""
    order: list[str] = []

    def apply(images: Array) -> dict[str, tuple[Array, ...]]:
        _, outputs = apply_with_taps(model, variables, images, where)
        order.extend(outputs)
        return outputs

    shapes = trace_shapes(apply, images)  # JAX sorts dictionaries by key
    return {path: shapes[path] for path in order}


def trace_shapes(function: Callable[[Array], PyTree], images: Array) -> PyTree:
    """Return shapes and dtypes of the outputs of a function that calls a model, and trace every module."""
    # Under `nn.jit` a second module that is equal to the first one is not traced, and hooks would miss it.
    with jax.disable_jit():
        return jax.eval_shape(function, images)
