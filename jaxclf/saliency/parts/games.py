"""Cooperative games: exact Shapley values, interactions and the additive part of a function of subsets.

A game is an array [2^n] of values: entry s is the value of the subset that has player i if bit i of s is set.
"""

from __future__ import annotations

from math import factorial

import numpy as np
from jaxtyping import Bool, Float


def list_members(players: int) -> Bool[np.ndarray, "subsets players"]:
    """Return which players each subset has."""
    return np.arange(2**players)[:, None] >> np.arange(players) & 1 == 1


def count_players(game: Float[np.ndarray, " subsets"]) -> int:
    """Return the number of players of a game."""
    return len(game).bit_length() - 1


def compute_drops(game: Float[np.ndarray, " subsets"]) -> Float[np.ndarray, " players"]:
    """Return what the set of all players loses without each of them."""
    return game[-1] - game[len(game) - 1 - 2 ** np.arange(count_players(game))]


def compute_gains(game: Float[np.ndarray, " subsets"]) -> Float[np.ndarray, " players"]:
    """Return what the empty set gains with each player."""
    return game[2 ** np.arange(count_players(game))] - game[0]


def compute_shapley(game: Float[np.ndarray, " subsets"]) -> Float[np.ndarray, " players"]:
    """Return the Shapley value of each player. They sum to the value of all players minus that of none.

    L. S. Shapley, "A value for n-person games" (1953).
    """
    n = count_players(game)
    members, subsets = list_members(n), np.arange(2**n)
    weights = np.array([factorial(k) * factorial(n - 1 - k) / factorial(n) if k < n else 0 for k in range(n + 1)])
    weights = weights[members.sum(axis=1)]
    values = np.empty(n)
    for i in range(n):
        without = subsets[~members[:, i]]
        values[i] = weights[without] @ (game[without | 1 << i] - game[without])
    return values


def compute_interactions(game: Float[np.ndarray, " subsets"]) -> Float[np.ndarray, "players players"]:
    """Return the Shapley interaction index of each pair: what two players add together beyond what each adds.

    M. Grabisch, M. Roubens, "An axiomatic approach to the concept of interaction among players in cooperative games"
    (1999). The matrix is symmetric, with a diagonal of zeros.
    """
    n = count_players(game)
    members, subsets, values = list_members(n), np.arange(2**n), np.zeros((n, n))
    sizes = members.sum(axis=1)
    for i in range(n):
        for j in range(i):
            rest = subsets[~members[:, i] & ~members[:, j]]
            weights = np.array([factorial(n - 2 - k) * factorial(k) / factorial(n - 1) for k in sizes[rest].tolist()])
            first, second = 1 << i, 1 << j
            together = game[rest | first | second] - game[rest | first] - game[rest | second] + game[rest]
            values[i, j] = values[j, i] = weights @ together
    return values


def compute_additive_share(game: Float[np.ndarray, " subsets"]) -> float:
    """Return the share of the variance over all subsets that the best sum of one number per player explains.

    The rest is due to interactions: no map that gives each part a number can represent it. 1.0 for a constant game.
    """
    variance = game.var()
    # The signs of different players are orthogonal over all subsets, so each coefficient is a mean.
    coefficients = np.where(list_members(count_players(game)), 1, -1).T @ game / len(game)
    return float((coefficients**2).sum() / variance) if variance > 0 else 1.0
