"""Groups of parameters: their paths, the layers of a model, and what an optimizer does with each parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import flax.linen as nn
import jax
from jaxtyping import PyTree

from jaxclf.errors import UserError, require
from jaxclf.io.files import write_rows


@runtime_checkable
class LayeredModel(Protocol):
    """A model that declares its layers, for learning rates by layer and for `Muon`."""

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, each as the names of its modules and parameters.

        A name is a path from the top of the model, such as "block1", and covers what is below it. The names cover all
        parameters; the last layer is the head alone. Names of modules without parameters are ignored.
        """
        ...


class Assignment(NamedTuple):
    """What an optimizer does with one parameter."""

    path: str
    """Names of the modules and of the parameter, such as "block1/conv2/kernel"."""
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()
    """What distinguishes its group from others; their names make up that of the group."""
    rate: float = 1.0
    """Multiplier of the learning rate; 0 if the parameter is frozen."""
    decay: float = 0.0
    """Weight decay."""

    @property
    def group(self) -> str:
        """Name of the group."""
        return "_".join(self.labels) or "all"

    @property
    def size(self) -> int:
        """Number of the elements of the parameter."""
        return prod(self.shape)


Assignments: TypeAlias = Mapping[str, Assignment]
"""What an optimizer does with each parameter, by path."""
COLUMNS = ("path", "shape", "group", "rate", "decay")  # of the table that runs keep


@runtime_checkable
class AssignsGroups(Protocol):
    """The protocol of optimizers that can tell what they do with each parameter."""

    def assign_groups(self, params: PyTree, model: nn.Module | None = None) -> Assignments:
        """Assign each parameter to a group.

        Args:
            params: Parameters of the model; only their shapes are used.
            model: The model.

        Returns:
            The assignments of all parameters, by path.
        """
        ...


def format_path(path: Sequence[Any]) -> str:
    """Return the path of a leaf of a tree as text: "block1/conv2/kernel"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def list_parameters(params: PyTree) -> list[Assignment]:
    """List the parameters of a model, all in one group that does not decay."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [Assignment(format_path(path), tuple(leaf.shape)) for path, leaf in leaves]


def match_path(path: str, pattern: str) -> bool:
    """Return whether a pattern matches a path, or the path of a module that contains it."""
    names = path.split("/")
    return any(fnmatchcase("/".join(names[: i + 1]), pattern) for i in range(len(names)))


def match_frozen(patterns: Sequence[str], paths: Sequence[str]) -> set[str]:
    """Return the paths that some patterns match.

    Raises:
        UserError: If a pattern matches nothing, or if no path is left.
    """
    frozen: set[str] = set()
    for pattern in patterns:
        matched = {path for path in paths if match_path(path, pattern)}
        tops = ", ".join(dict.fromkeys(path.split("/")[0] for path in paths))
        require(bool(matched), f"freeze={pattern!r} matches no parameter; the modules of the model are {tops}")
        frozen |= matched
    require(len(frozen) < len(paths), f"freeze={tuple(patterns)} leaves no parameter to train; freeze fewer modules")
    return frozen


def stop_frozen_gradients(patterns: Sequence[str], params: PyTree) -> PyTree:
    """Return parameters of which those that some patterns match are constants, so that no gradient is computed."""
    if not patterns:
        return params
    frozen = match_frozen(patterns, [each.path for each in list_parameters(params)])
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if format_path(path) in frozen else leaf, params
    )


def assign_layers(layer_groups: tuple[tuple[str, ...], ...], paths: Iterable[str]) -> dict[str, int]:
    """Return the index of the layer of each path, from 0 at the input.

    Args:
        layer_groups: The layers that a model declares.
        paths: Paths of its parameters.

    Raises:
        UserError: If paths are in no layer.
    """
    names = {name: i for i, layer in enumerate(layer_groups) for name in layer}
    layers = {path: i for path in paths for name, i in names.items() if f"{path}/".startswith(f"{name}/")}
    missing = [path for path in paths if path not in layers]
    if missing:
        raise UserError("layer_groups of the model does not cover all of its parameters; add:", missing)
    return layers


def select(assignments: Assignments, get: Callable[[Assignment], Any]) -> Callable[[PyTree], PyTree]:
    """Return a function from a tree of parameters to a tree of values of their assignments."""
    return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: get(assignments[format_path(path)]), tree)


def summarize_groups(assignments: Assignments) -> list[str]:
    """Return a line for each group: its name, the number of its parameters, their rate and weight decay."""
    groups: dict[str, list[Assignment]] = {}
    for each in assignments.values():
        groups.setdefault(each.group, []).append(each)
    return [
        f"{name}: {sum(each.size for each in group):,} parameters, "
        + (f"rate x {group[0].rate:.4g}, weight decay {group[0].decay:g}" if group[0].rate else "not trained")
        for name, group in groups.items()
    ]


def write_assignments(path: Path, assignments: Assignments) -> None:
    """Write a table with a row for each parameter."""
    rows = (
        (each.path, "x".join(map(str, each.shape)), each.group, each.rate, each.decay) for each in assignments.values()
    )
    write_rows(path, COLUMNS, rows)
