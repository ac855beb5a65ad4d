"""Sums over positions: equal to plain sums, in loops on CPUs only, and with derivatives of any order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support.steps import make_devices

from jaxclf.training.devices import AXIS
from jaxclf.xla import options, sums
from jaxclf.xla.sums import sum_positions


def terms(x, y):
    return x, x * y**2


def add_plainly(x, y):
    return [term.sum((1, 2), keepdims=True) for term in terms(x, y)]


@pytest.fixture
def arrays(random):
    return [jnp.asarray(random.normal(size=(2, 3, 17, 5)), jnp.float32) for _ in range(2)]


# The loop adds 17 positions by 1, 2, 4, 8 or 16 at a time, or not at all.
@pytest.mark.parametrize("size", [1, 2 * 30, 4 * 30, 8 * 30, 16 * 30, 17 * 30])
def test_parts_of_any_size_give_the_sums(size, arrays, monkeypatch):
    monkeypatch.setattr(sums, "CHUNK_SIZE", size)
    for found, expected in zip(jax.jit(partial(sum_positions, terms))(*arrays), add_plainly(*arrays), strict=True):
        assert found.shape == (2, 1, 1, 5)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_derivatives_are_those_of_the_plain_sums(random, monkeypatch):
    monkeypatch.setattr(sums, "CHUNK_SIZE", 2 * 30)
    with jax.enable_x64(True):
        x, y = (jnp.asarray(random.normal(size=(2, 3, 17, 5))) for _ in range(2))

        def derive(add):
            gradient = jax.grad(lambda x: sum(jnp.sin(total).sum() for total in add(x, y)))
            return gradient(x), jax.jvp(gradient, (x,), (y,))[1]

        for found, expected in zip(derive(partial(sum_positions, terms)), derive(add_plainly), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_loops_are_for_cpus_and_can_be_switched_off(arrays, monkeypatch):
    monkeypatch.setattr(sums, "CHUNK_SIZE", 2 * 30)

    def list_operations():
        return {eqn.primitive.name for eqn in jax.make_jaxpr(partial(sum_positions, terms))(*arrays).eqns}

    assert "scan" in list_operations()
    monkeypatch.setenv(options.SWITCH, "0")
    assert "scan" not in list_operations()


def test_rows_stay_on_their_devices(random, monkeypatch):
    monkeypatch.setattr(sums, "CHUNK_SIZE", 64)
    x = jnp.asarray(random.normal(size=(1, 8, 6, 5)), jnp.float32)
    sharded = jax.device_put(x, NamedSharding(make_devices(4).mesh, PartitionSpec(None, AXIS)))
    program = jax.jit(lambda x: sum_positions(lambda x: (x, x**2), x)).lower(sharded).compile()
    assert not any(name in program.as_text() for name in ("all-gather(", "all-to-all(", "collective-permute("))
    np.testing.assert_allclose(program(sharded)[1], (x**2).sum((1, 2), keepdims=True), rtol=1e-5)
