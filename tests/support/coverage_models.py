"""Networks of several frameworks by name, with their variables, or only the shapes of these."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxclf import saliency
from jaxclf.models import Cnn, ConvNext, EfficientNetLite, MaxoutCnn, Mlp, ResNet, SimpsonsCnn, Vit

SIDE = 32
DIGITS, PHOTOGRAPHS = (1, 28, 28, 1), (1, SIDE, SIDE, 3)


class FlaxCnn(nn.Module):
    """The network of Flax's MNIST example."""

    @nn.compact
    def __call__(self, x, train=False):
        for features in (32, 64):
            x = nn.avg_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(nn.relu(nn.Dense(256)(x.reshape(x.shape[0], -1))))


class FlaxResNet(nn.Module):
    """ResNet-50 of Flax's ImageNet example."""

    @nn.compact
    def __call__(self, x, train=False):
        def norm():
            return nn.BatchNorm(use_running_average=not train)

        x = nn.Conv(64, (7, 7), (2, 2), [(3, 3), (3, 3)], use_bias=False)(x)
        x = nn.max_pool(nn.relu(norm()(x)), (3, 3), (2, 2), "SAME")
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                features, strides = 64 * 2**stage, (2, 2) if stage > 0 and block == 0 else (1, 1)
                y = nn.relu(norm()(nn.Conv(features, (1, 1), use_bias=False)(x)))
                y = nn.relu(norm()(nn.Conv(features, (3, 3), strides, use_bias=False)(y)))
                y = norm()(nn.Conv(features * 4, (1, 1), use_bias=False)(y))
                x = norm()(nn.Conv(features * 4, (1, 1), strides, use_bias=False)(x)) if x.shape != y.shape else x
                x = nn.relu(x + y)
        return nn.Dense(1000)(x.mean(axis=(1, 2)))


class FlaxVit(nn.Module):
    """A vision transformer of Flax's attention and GELU by tanh, in a loop over blocks with checkpoints."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(64, (8, 8), (8, 8))(x).reshape(x.shape[0], -1, 64)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        loop = nn.scan(nn.remat(FlaxBlock), variable_axes={"params": 0}, split_rngs={"params": True}, length=6)
        x, _ = loop()(x, None)
        return nn.Dense(10)(nn.LayerNorm()(x).mean(axis=1))


class FlaxBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
        return x + nn.Dense(64)(nn.gelu(nn.Dense(128)(nn.LayerNorm()(x)))), None


LINEN = {
    "Mlp": (Mlp(features=(64, 32), classes=10), DIGITS),
    "Cnn": (Cnn(features=(16, 36), dense=(128,), classes=10), DIGITS),
    "SimpsonsCnn": (SimpsonsCnn(features=(8, 16), dense=(32,), classes=18), PHOTOGRAPHS),
    "MaxoutCnn": (
        MaxoutCnn(features=(8, 8), kernel_sizes=(3, 3), blocks=(2, 2), dense=(16,), classes=10),
        PHOTOGRAPHS,
    ),
    "Vit B/16": (Vit.named("B/16", 1000, image_size=(SIDE, SIDE)), PHOTOGRAPHS),
    "Vit with q/k norm": (
        Vit(8, 64, 6, 4, 10, (SIDE, SIDE), pool="mean", qk_norm=True, layer_scale=0.1, remat=True),
        PHOTOGRAPHS,
    ),
    "ConvNext T": (ConvNext.named("T", 1000), PHOTOGRAPHS),
    "ResNet 50": (ResNet.named(50, 1000), PHOTOGRAPHS),
    "EfficientNetLite 0": (EfficientNetLite.named(0, 1000), PHOTOGRAPHS),
    "Flax MNIST CNN": (FlaxCnn(), DIGITS),
    "Flax ImageNet ResNet-50": (FlaxResNet(), PHOTOGRAPHS),
    "Flax transformer": (FlaxVit(), PHOTOGRAPHS),
}


def make_linen(name):
    model, shape = LINEN[name]
    return model, jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)), shape


def make_nnx_cnn():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 32, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(32, rngs=rngs)
            self.dense = nnx.Linear(32 * 256, 10, rngs=rngs)

        def __call__(self, x):
            x = nnx.avg_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
            return self.dense(x.reshape(x.shape[0], -1))

    return *saliency.adapt_nnx(Net(nnx.Rngs(0))), PHOTOGRAPHS


def make_nnx_vit():
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norms = nnx.List([nnx.LayerNorm(32, rngs=rngs) for _ in range(2)])
            self.attention = nnx.MultiHeadAttention(4, 32, decode=False, rngs=rngs)
            self.dense = nnx.List([nnx.Linear(32, 64, rngs=rngs), nnx.Linear(64, 32, rngs=rngs)])

        def __call__(self, x):
            x = x + self.attention(self.norms[0](x))
            return x + self.dense[1](nnx.gelu(self.dense[0](self.norms[1](x))))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.patches = nnx.Conv(3, 32, (8, 8), (8, 8), rngs=rngs)
            self.token = nnx.Param(jnp.zeros((1, 1, 32)))
            self.blocks = nnx.List([Block(rngs) for _ in range(3)])
            self.head = nnx.Linear(32, 10, rngs=rngs)

        def __call__(self, x):
            x = self.patches(x).reshape(x.shape[0], -1, 32)
            x = jnp.concatenate([jnp.broadcast_to(self.token[...], (x.shape[0], 1, 32)), x], axis=1)
            for block in self.blocks:
                x = block(x)
            return self.head(x[:, 0])

    return *saliency.adapt_nnx(Net(nnx.Rngs(0))), PHOTOGRAPHS


def make_equinox_cnn():
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0))
    net = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 8, 3, key=keys[0]),
            eqx.nn.GroupNorm(4, 8),
            eqx.nn.Lambda(jax.nn.elu),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(8 * 15 * 15, 10, key=keys[1]),
        ]
    )
    return *saliency.adapt_equinox(net, lambda net, x: jax.vmap(net)(x.transpose(0, 3, 1, 2))), PHOTOGRAPHS


def make_equinox_vit():
    import equinox as eqx

    class Block(eqx.Module):
        norms: list
        attention: eqx.nn.MultiheadAttention
        mlp: eqx.nn.MLP

        def __init__(self, key):
            keys = jax.random.split(key)
            self.norms = [eqx.nn.LayerNorm(32), eqx.nn.RMSNorm(32)]
            self.attention = eqx.nn.MultiheadAttention(4, 32, key=keys[0])
            self.mlp = eqx.nn.MLP(32, 32, 64, 1, jax.nn.silu, key=keys[1])

        def __call__(self, x):
            y = jax.vmap(self.norms[0])(x)
            x = x + self.attention(y, y, y)
            return x + jax.vmap(self.mlp)(jax.vmap(self.norms[1])(x))

    class Net(eqx.Module):
        patches: eqx.nn.Conv2d
        blocks: list
        head: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 5)
            self.patches = eqx.nn.Conv2d(3, 32, 8, 8, key=keys[0])
            self.blocks = [Block(key) for key in keys[1:4]]
            self.head = eqx.nn.Linear(32, 10, key=keys[4])

        def __call__(self, image):
            x = self.patches(image.transpose(2, 0, 1)).reshape(32, -1).T
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(axis=0))

    return *saliency.adapt_equinox(Net(jax.random.key(0))), PHOTOGRAPHS


def make_haiku_resnet():
    import haiku as hk

    net = hk.transform_with_state(lambda x, is_training=False: hk.nets.ResNet50(1000)(x, is_training))
    images = jax.ShapeDtypeStruct(PHOTOGRAPHS, jnp.float32)
    params, state = jax.eval_shape(lambda images: net.init(jax.random.key(0), images, is_training=True), images)
    return *saliency.adapt_haiku(net, params, state), PHOTOGRAPHS


def make_haiku_vit():
    import haiku as hk

    def net(x):
        x = hk.Conv2D(32, 8, 8)(x).reshape(x.shape[0], -1, 32)
        for _ in range(3):
            y = hk.LayerNorm(-1, True, True)(x)
            x = x + hk.MultiHeadAttention(4, 8, w_init=hk.initializers.VarianceScaling())(y, y, y)
            y = hk.LayerNorm(-1, True, True)(x)
            x = x + hk.Linear(32)(jax.nn.gelu(hk.Linear(64)(y)))
        return hk.Linear(10)(x.mean(axis=1))

    transformed = hk.without_apply_rng(hk.transform(net))
    params = jax.eval_shape(transformed.init, jax.random.key(0), jax.ShapeDtypeStruct(PHOTOGRAPHS, jnp.float32))
    return *saliency.adapt_haiku(transformed, params), PHOTOGRAPHS


def make_keras_vit():
    import keras

    layers = keras.layers
    inputs = keras.Input(PHOTOGRAPHS[1:])
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, 8)(inputs))
    for _ in range(3):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))
    return *saliency.adapt_keras(model), PHOTOGRAPHS


def make_keras_application(name):
    import keras

    model = getattr(keras.applications, name)(weights=None, input_shape=PHOTOGRAPHS[1:], classifier_activation=None)
    return *saliency.adapt_keras(model), PHOTOGRAPHS


KERAS = {
    "Keras transformer": make_keras_vit,
    **{
        f"Keras {name}": lambda name=name: make_keras_application(name)
        for name in ("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "MobileNetV3Small", "ResNet50V2")
    },
}
"""Models in a process of its own, where the backend of Keras is JAX."""
MODELS = {
    **{name: lambda name=name: make_linen(name) for name in LINEN},
    "NNX CNN": make_nnx_cnn,
    "NNX transformer": make_nnx_vit,
    "Equinox CNN": make_equinox_cnn,
    "Equinox transformer": make_equinox_vit,
    "Haiku ResNet-50": make_haiku_resnet,
    "Haiku transformer": make_haiku_vit,
    **KERAS,
}
