"""Linear probes: logistic regression on features, for many penalties and subsets of the examples at once."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from jaxclf.inference.features.lbfgs import minimize
from jaxclf.types import Array

MAX_STEPS = 500
TOLERANCE = 1e-4  # norm of the gradient of the mean loss
AT_ONCE = 64  # probes that are fitted together


class Probes(NamedTuple):
    """Fitted linear classifiers."""

    kernels: Float[np.ndarray, "p c classes"]
    biases: Float[np.ndarray, "p classes"]
    gradient_norms: Float[np.ndarray, " p"]
    """Norm of the gradient of the penalized loss where each fit ended."""

    def compute_logits(self, features: Float[Array, "n c"]) -> Float[np.ndarray, "p n classes"]:
        """Return the logits of each probe."""
        return np.einsum("nc,pck->pnk", features, self.kernels, optimize=True) + self.biases[:, None]


def fit_probes(
    features: Float[Array, "n c"],
    labels: Int[Array, " n"],
    classes: int,
    penalties: Float[Array, " p"],
    used: Bool[Array, "p n"],
) -> Probes:
    """Fit logistic regressions, each with its penalty and its examples.

    The loss of each is the mean cross-entropy of its examples plus penalty / 2 times the squared norm of the kernel. It
    is minimized by L-BFGS in coordinates in which its Hessian is about the identity: the principal axes of the
    features, scaled by the curvature along them. There are no more axes than examples. Probes of the same
    examples start where the one with the next larger penalty ended.

    Args:
        features: Features [n, c].
        labels: Labels [n] from 0.
        classes: Number of classes.
        penalties: Penalty of each probe; for the C of scikit-learn and n examples 1 / (C n), or 2 / (C n) for two
            classes, where scikit-learn has one vector of weights and this function two.
        used: The examples of each probe.

    Returns:
        The probes.
    """
    x = np.asarray(features, np.float32)
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    rotated, axes = _rotate(x - mean)
    curvature = np.square(rotated).mean(axis=0) * (1 / classes) * (1 - 1 / classes)
    solve = partial(_fit_part, rotated, np.asarray(labels), classes, curvature)
    kernels = np.zeros((len(penalties), rotated.shape[1], classes), np.float32)
    biases, norms = np.zeros((len(penalties), classes), np.float32), np.zeros(len(penalties), np.float32)
    _, subsets = np.unique(used, axis=0, return_inverse=True)
    size = min(int(subsets.max()) + 1, AT_ONCE)
    order = np.lexsort((subsets, -np.asarray(penalties)))
    last: dict[int, int] = {}  # by subset, the probe with the next larger penalty: a start near the solution
    for start in range(0, len(order), size):
        chosen = order[np.minimum(np.arange(start, start + size), len(order) - 1)]  # always as many: compiled once
        known = np.array([last.get(int(subset), -1) for subset in subsets[chosen]])[:, None]
        first = (
            np.where(known[:, :, None] >= 0, kernels[known[:, 0]], 0),
            np.where(known >= 0, biases[known[:, 0]], 0),
        )
        found = solve(np.float32(penalties[chosen]), used[chosen], *first)
        kernels[chosen], biases[chosen], norms[chosen] = jax.device_get(found)
        last |= {int(subset): int(probe) for subset, probe in zip(subsets[chosen], chosen, strict=True)}
    kernels = np.einsum("cd,pdk->pck", axes, kernels, optimize=True)
    return Probes(kernels, biases - np.einsum("c,pck->pk", mean, kernels), norms)


def _rotate(centered: Float[np.ndarray, "n c"]) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "c d"]]:
    """Return features in their principal axes, and the axes; d is the smaller one of n and c."""
    if len(centered) >= centered.shape[1]:
        _, axes = np.linalg.eigh(centered.T @ centered)
        return centered @ axes, axes
    left, scales, axes = np.linalg.svd(centered, full_matrices=False)
    return left * scales, axes.T


@partial(jax.jit, static_argnums=2)
def _fit_part(
    x: Array,
    labels: Array,
    classes: int,
    curvature: Array,
    penalties: Array,
    used: Array,
    kernels: Array,
    biases: Array,
) -> Any:
    """Return kernels and biases in the coordinates of `x`, from a start, and the norms of the gradients."""
    (n, d), p = x.shape, len(penalties)
    scale = jax.lax.rsqrt(curvature[None] + penalties[:, None])[:, :, None]  # [p, d, 1]
    weights = used / used.sum(axis=1, keepdims=True)
    targets = jax.nn.one_hot(labels, classes)

    def unpack(flat: Array) -> tuple[Array, Array]:
        both = flat.reshape(p, d + 1, classes)
        return scale * both[:, :d], both[:, d]

    def compute_losses(flat: Array) -> Array:
        kernels, biases = unpack(flat)
        # One matrix product for all probes.
        logits = (x @ kernels.transpose(1, 0, 2).reshape(d, -1)).reshape(n, p, classes) + biases[None]
        losses = optax.softmax_cross_entropy(logits, targets[:, None])
        return jnp.einsum("pn,np->p", weights, losses) + penalties / 2 * (kernels**2).sum((1, 2))

    def evaluate(flat: Array) -> tuple[Array, Array]:
        losses, pull_back = jax.vjp(compute_losses, flat)
        return losses, pull_back(jnp.ones(p, losses.dtype))[0]

    def get_norms(gradient: Array) -> Array:  # by the kernel of the features
        both = gradient.reshape(p, d + 1, classes)
        return jnp.sqrt(((both[:, :d] / scale) ** 2).sum((1, 2)) + (both[:, d] ** 2).sum(1))

    start = jnp.concatenate([kernels / scale, biases[:, None]], axis=1).reshape(p, -1)
    flat = minimize(evaluate, start, lambda gradient: get_norms(gradient) <= TOLERANCE, MAX_STEPS)
    return *unpack(flat), get_norms(evaluate(flat)[1])
