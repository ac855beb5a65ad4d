"""Networks, metrics, losses and augmentations of one's own: all usual signatures, and mistakes (cases F8 and F9)."""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.configs import MLP

import jaxclf
from jaxclf.errors import UserError
from jaxclf.models.calling import apply_to_train, get_mode
from jaxclf.models.memory import choose_eval_batch_size, compute_image_bytes
from jaxclf.random import make_key
from jaxclf.saliency import Gradient


def flatten(images):
    return images.reshape(len(images), -1) / 255.0


class Plain(nn.Module):
    """A network that is the same in training and evaluation."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(10)(flatten(images))


class Deterministic(nn.Module):
    """The argument of Linen's own layers."""

    @nn.compact
    def __call__(self, images, deterministic):
        return nn.Dense(10)(nn.Dropout(0.5)(flatten(images), deterministic=deterministic))


class WithoutDefault(nn.Module):
    """`train` has to be given."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(10)(nn.Dropout(0.5)(flatten(images), deterministic=not train))


class StochasticDepth(nn.Module):
    """A random stream of its own."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(10)(flatten(images))
        return x * jax.random.bernoulli(self.make_rng("depth"), 0.5, (len(x), 1)) if train else x


class BatchStatistics(nn.Module):
    """Batch statistics that are updated in evaluation, too, or the mode is not given."""

    average: bool | None

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(10)(nn.BatchNorm(self.average)(flatten(images)))


class NotFlat(nn.Module):
    """Logits for each pixel."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(10)(images / 255.0)


class MoreArguments(nn.Module):
    """An argument that nobody gives."""

    @nn.compact
    def __call__(self, images, temperature, train=False):
        return nn.Dense(10)(flatten(images)) / temperature


class WrongShapes(nn.Module):
    """Matrices that do not fit."""

    @nn.compact
    def __call__(self, images, train=False):
        return flatten(images) @ jnp.ones((3, 10))


@dataclass(frozen=True)
class WrongMetric:
    """It expects one-hot labels."""

    def stats(self, logits, labels, mask):
        return {"sum": (logits @ labels.reshape(7, 11)).sum(), "count": mask.sum()}

    def compute(self, stats):
        return {"wrong": stats["sum"]}


@dataclass(frozen=True)
class MeanLoss:
    """A mean over the examples."""

    def __call__(self, logits, labels):
        return jnp.mean(logits)


@dataclass(frozen=True)
class WrongAugmentation:
    """It expects a batch of images."""

    def __call__(self, key, image):
        batch, _height, _width, _channels = image.shape
        return image[:batch]


class Hungry(nn.Module):
    """It needs 4 TiB in training, or in evaluation."""

    when: bool

    @nn.compact
    def __call__(self, images, train=False):
        x = flatten(images)
        if train == self.when:
            x = x + jnp.sort(jnp.broadcast_to(x[:, :1], (len(x), 2**40)))[:, :1]
        return nn.Dense(10)(x)


@pytest.mark.parametrize(
    "model", [Plain(), Deterministic(), WithoutDefault(), StochasticDepth(), nn.Sequential((Plain(),))]
)
def test_networks_of_all_usual_signatures(model, digits):
    run = jaxclf.fit(replace(MLP, model=model, epochs=1), splits=digits)
    assert np.isfinite(run.evaluate("test")["loss"])
    values = run.explain(Gradient(), digits.test.images[:2]).values
    assert np.abs(values).max() > 0


def test_random_streams_have_keys_of_their_own():
    images = jnp.full((64, 2, 2, 1), 255, jnp.uint8)
    variables = StochasticDepth().init(jax.random.key(0), images)

    def apply(step):
        keys = lambda name: jax.random.fold_in(make_key(0, name), step)  # noqa: E731
        return np.asarray(apply_to_train(StochasticDepth(), variables, images, keys, [])[0])

    np.testing.assert_array_equal(apply(0), apply(0))
    assert 16 < (apply(0) == 0).all(axis=1).sum() < 48  # 32 ± 4 of 64
    assert (apply(0) != apply(1)).any()
    keys = [jax.random.key_data(make_key(0, name)) for name in ("depth", "path", "dropout", "init")]
    assert len(np.unique(np.stack(keys), axis=0)) == 4
    assert get_mode(Plain(), True) == {}
    assert get_mode(Deterministic(), True) == {"deterministic": False}


@pytest.mark.parametrize(
    ("changes", "error", "line"),
    [
        ({"model": BatchStatistics(False)}, "ModifyScopeVariableError", "nn.BatchNorm(self.average)"),
        ({"model": BatchStatistics(None)}, 'ValueError: Parameter "use_running_average"', "nn.BatchNorm(self.average)"),
        ({"model": NotFlat()}, "the model returns [1, 28, 28, 10] for one image; expected logits [1, 10]", ""),
        ({"model": MoreArguments()}, "missing 1 required positional argument: 'temperature'", ""),
        ({"model": WrongShapes()}, "WrongShapes failed while it was traced: TypeError", "@ jnp.ones((3, 10))"),
        ({"metrics": (WrongMetric(),)}, "WrongMetric failed while it was traced: TypeError", "labels.reshape(7, 11)"),
        ({"loss": MeanLoss()}, "MeanLoss returns [] for", ""),
        ({"augment": (WrongAugmentation(),)}, "WrongAugmentation failed while it was traced", "= image.shape"),
    ],
)
def test_mistakes_are_explained_in_a_few_lines(changes, error, line, digits, tmp_path):
    """Case F9: the error, the user's line and what was expected; no run is left behind."""
    with pytest.raises(UserError) as caught:
        jaxclf.fit(replace(MLP, **changes), splits=digits, workdir=tmp_path / "run")
    text = str(caught.value)
    assert error in text
    assert line in text
    assert "expected" in text
    assert len(text.splitlines()) <= 12
    assert (f"{__file__}, line " in text) == bool(line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("in_training", "phase", "option", "saved"),
    [(True, "a training step", "--batch-size", []), (False, "evaluation", "--eval-batch-size", ["13"])],
)
def test_memory_that_does_not_suffice_is_one_message(in_training, phase, option, saved, digits, tmp_path):
    """Case F8: the phase, the bytes and the option; what was trained is saved."""
    config = replace(MLP, model=Hungry(in_training), epochs=2)
    message = rf"out of memory in {phase}, which asked for \d{{12,}} bytes at once; .*{option}"
    with pytest.raises(UserError, match=message):
        jaxclf.fit(config, splits=digits, workdir=tmp_path / "run")
    checkpoints = tmp_path / "run/checkpoints"
    assert [path.name for path in checkpoints.glob("[0-9]*")] == saved


@pytest.mark.parametrize(("method", "phase"), [("predict", "prediction"), ("features", "computing features")])
def test_memory_that_does_not_suffice_for_a_trained_run_is_one_message(method, phase, digits):
    """Case F8, in prediction."""
    images = digits.test.images[:4]
    variables = Hungry(True).init(jax.random.key(0), images)
    run = jaxclf.Run(replace(MLP, model=Hungry(False)), 0, digits.test.class_names, images.shape[1:], variables)
    message = rf"out of memory in {phase}, which asked for \d{{12,}} bytes at once; lower eval_batch_size"
    with pytest.raises(UserError, match=message):
        getattr(run, method)(images)


class Wide(nn.Module):
    """A convolution of many filters, and a Dense layer of many parameters."""

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(64, (3, 3))(images / 255.0))
        return nn.Dense(10)(nn.Dense(5_000)(x.mean(axis=(1, 2))))


def test_the_batch_of_evaluation_follows_from_the_size_of_the_images():
    relu = 2 * 4 * 64 * 224**2  # bytes that it reads and writes
    assert compute_image_bytes(Wide(), (224, 224, 3)) == relu
    assert choose_eval_batch_size(Wide(), (224, 224, 3)) == 2**29 // relu == 20
    assert choose_eval_batch_size(Wide(), (28, 28, 3)) == 500
    assert choose_eval_batch_size(Wide(), (4_000, 4_000, 3)) == 1
    assert choose_eval_batch_size(MLP.model, (28, 28, 1)) == 500
