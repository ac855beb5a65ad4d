"""A step of a network with batch normalization does not depend on parts, devices, pmap or padding."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from support.steps import BATCH, STEP_CONFIG, assert_same, fit, make_devices, read_batches

from jaxclf.errors import UserError
from jaxclf.models import MaxoutCnn
from jaxclf.types import Batch

MODEL = MaxoutCnn((3, 4), (3, 2), (2, 2), (8,), classes=10, dropout=0.3, batch_norm_group=4)
GROUPS = replace(STEP_CONFIG, augment=(), model=MODEL)


@pytest.fixture(scope="module")
def batches(digits):
    return read_batches(digits)[-3:]  # the last one is padded


@pytest.fixture(scope="module")
def alone(batches):
    return fit(GROUPS, batches)


@pytest.mark.parametrize(
    ("count", "parallel", "parts"),
    [(1, "jit", 2), (1, "jit", 4), (4, "jit", 1), (4, "pmap", 1), (2, "pmap", 2)],
)
def test_a_step_does_not_depend_on_parts_and_devices(count, parallel, parts, batches, alone):
    found = fit(replace(GROUPS, gradient_accumulation=parts), batches, make_devices(count, parallel))
    assert_same((found.params, found.model_state), (alone.params, alone.model_state))


@pytest.mark.parametrize("group", [None, 4])
def test_a_step_does_not_depend_on_padding(group, batches):
    step_config = replace(GROUPS, model=MODEL.clone(batch_norm_group=group, dropout=0.0))
    batch = jax.tree.map(lambda part: part[:8], batches[0])
    padded = Batch(
        np.resize(batch.images, batches[0].images.shape), np.resize(batch.labels, BATCH), np.arange(BATCH) < 8
    )
    found, expected = fit(step_config, [padded]), fit(step_config, [batch])
    assert_same((found.params, found.model_state), (expected.params, expected.model_state), atol=1e-6)


def test_a_model_without_groups_gives_on_four_devices_what_it_gives_on_one(batches):
    step_config = replace(GROUPS, model=MODEL.clone(batch_norm_group=None))
    found, expected = fit(step_config, batches, make_devices(4)), fit(step_config, batches)
    assert_same((found.params, found.model_state), (expected.params, expected.model_state))


@pytest.mark.parametrize(
    ("group", "count", "parallel", "parts", "message"),
    [
        (None, 1, "jit", 2, "batch_norm_group=None .*gradient_accumulation"),
        (None, 4, "pmap", 1, "batch_norm_group=None .*pmap"),
        (3, 1, "jit", 1, "batch_norm_group=3 does not divide the 16 examples"),
        (8, 4, "pmap", 1, "batch_norm_group=8 does not divide the 4 examples"),
        (8, 1, "jit", 4, "16 examples do not divide into 4 .*batch_norm_group=8"),
    ],
)
def test_groups_that_would_be_split_are_refused_by_name(group, count, parallel, parts, message, batches):
    step_config = replace(GROUPS, model=MODEL.clone(batch_norm_group=group), gradient_accumulation=parts)
    with pytest.raises(UserError, match=message):
        fit(step_config, batches[:1], make_devices(count, parallel))
