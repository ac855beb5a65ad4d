"""ScoreCam: the loop over channels, written out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import IMAGES, Net, activation, draw_variables

from jaxclf import saliency


def increases(model, variables, image, features, baseline, target):
    """How much more of a logit each channel lets through than there is at the baseline, channel by channel."""
    scores = []
    for k in range(features.shape[-1]):
        mask = np.asarray(jax.image.resize(features[..., k], image.shape[:2], "bilinear"))
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / spread if spread > 1e-6 else np.zeros_like(mask)
        seen = baseline + mask[..., None] * (image - baseline)
        scores.append(model.apply(variables, seen[None])[0, target])
    return np.array(scores) - float(model.apply(variables, np.full_like(image, baseline)[None])[0, target])


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_scorecam_is_the_loop_over_channels(baseline):
    variables = draw_variables(Net())
    dead = {"conv": {**variables["params"]["second"]["conv"], "bias": np.array([-9, 0, 0, 0.1, 0.2], np.float32)}}
    variables = {"params": {**variables["params"], "second": dead}}
    features, target = activation(Net(), variables, IMAGES), 3
    assert (np.ptp(features, axis=(0, 1, 2)) > 0).tolist() == [False, True, True, True, True]
    a = saliency.ScoreCam("second/relu", relu=False)(Net(), variables, IMAGES, target, baseline=baseline)
    for i, image in enumerate(IMAGES):
        weights = np.exp(increases(Net(), variables, image, features[i], baseline, target))
        expected = features[i] @ (weights / weights.sum())
        np.testing.assert_allclose(a.values[i, ..., 0], expected, atol=1e-5)
    assert (a.evaluations == 1 + features.shape[-1]).all()


def test_a_channel_that_is_the_same_everywhere_shows_scorecam_the_baseline():
    """Also where upsampling leaves rounding errors in it."""

    class Constant(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            x = nn.Conv(2, (1, 1), name="conv")(images[:, ::2, ::2])
            return jnp.stack([images.sum(axis=(1, 2, 3)), x.sum(axis=(1, 2, 3))], axis=1)

    layer = {"kernel": np.array([[[[0, 1]]]], np.float32), "bias": np.full(2, 0.3, np.float32)}
    ramp = np.arange(49, dtype=np.float32).reshape(1, 7, 7, 1) / 49
    a = saliency.ScoreCam(relu=False)(Constant(), {"params": {"conv": layer}}, ramp, 0)
    mask = np.asarray(jax.image.resize(ramp[:, ::2, ::2], ramp.shape, "bilinear"))
    seen = (((mask - mask.min()) / np.ptp(mask)) * ramp).sum()
    dead, alive = np.exp([0.0 - seen, 0.0]) / np.exp([0.0 - seen, 0.0]).sum()
    np.testing.assert_allclose(a.values, dead * 0.3 + alive * (0.3 + ramp[:, ::2, ::2]), atol=1e-5)
