"""Rewritten convolutions agree with plain ones, derivatives included, in loops too; the switch turns all of it off."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from support.steps import make_devices

from jaxclf.models import Cnn
from jaxclf.training.devices import AXIS
from jaxclf.types import promote_float
from jaxclf.xla import options as xla_options
from jaxclf.xla.compilation import compile_fast
from jaxclf.xla.convolutions import FastConvolutions, rewrite_convolutions
from jaxclf.xla.interpreter import find_subjaxprs
from jaxclf.xla.options import WITH_ONEDNN, WITHOUT_YNN

RANDOM = np.random.default_rng(0)
ORDERS = {"channels last": ("NHWC", "HWIO", "NHWC"), "channels first": ("NCHW", "OIHW", "NCHW")}


@pytest.fixture
def on_version(monkeypatch):
    """Rewrite as on some version of JAX, on an x86 machine."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return partial(monkeypatch.setattr, jax, "__version_info__")


def convolve(images, kernel, strides=(1, 1), padding="SAME", order="channels last", **options):
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=ORDERS[order], **options)


def arrays(*shapes):
    return tuple(jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in shapes)


CASES = {
    "grey images": (arrays((4, 8, 8, 1), (5, 5, 1, 8)), {}),
    "colour, no padding": (arrays((4, 8, 10, 3), (3, 3, 3, 6)), {"padding": "VALID"}),
    "colour, an even window": (arrays((4, 8, 8, 3), (4, 2, 3, 6)), {"padding": ((2, 1), (1, 0))}),
    "colour, an odd side": (arrays((4, 7, 8, 3), (3, 3, 3, 6)), {}),
    "many channels": (arrays((8, 6, 6, 5), (3, 3, 5, 7)), {}),
    "a batch without parts": (arrays((3, 6, 6, 5), (3, 3, 5, 7)), {}),
    "a batch of two parts": (arrays((34, 6, 6, 5), (3, 3, 5, 7)), {}),
    "a batch of four parts": (arrays((64, 6, 6, 2), (3, 3, 2, 7)), {"strides": (2, 2)}),
    "strides": (arrays((4, 8, 8, 3), (3, 3, 3, 6)), {"strides": (2, 2)}),
    "dilation": (arrays((4, 8, 8, 3), (3, 3, 3, 6)), {"rhs_dilation": (2, 2)}),
    "groups": (arrays((4, 6, 6, 4), (3, 3, 2, 6)), {"feature_group_count": 2}),
    "patches": (arrays((4, 8, 12, 3), (4, 4, 3, 5)), {"strides": (4, 4), "padding": "VALID"}),
    "patches of some pixels": (arrays((2, 9, 7, 2), (3, 2, 2, 5)), {"strides": (3, 2), "padding": "VALID"}),
    "a stem": (arrays((2, 14, 10, 3), (7, 7, 3, 5)), {"strides": (2, 2), "padding": ((3, 3), (2, 4))}),
    "a stem, cropped": (arrays((2, 13, 12, 3), (7, 7, 3, 5)), {"strides": (2, 2), "padding": ((-1, 3), (4, -2))}),
    "a stem, channels first": (arrays((2, 3, 12, 14), (5, 3, 7, 4)), {"strides": (3, 2), "order": "channels first"}),
    "groups, strides": (arrays((4, 7, 6, 6), (3, 3, 2, 9)), {"feature_group_count": 3, "strides": (2, 1)}),
    "groups, channels first": (
        arrays((4, 4, 6, 6), (8, 2, 3, 3)),
        {"feature_group_count": 2, "rhs_dilation": (1, 2), "order": "channels first"},
    ),
    "channels first": (arrays((4, 3, 8, 8), (6, 3, 3, 3)), {"order": "channels first"}),
    "transposed": (arrays((4, 5, 6, 3), (3, 2, 3, 6)), {"lhs_dilation": (2, 3), "padding": ((1, 2), (1, 0))}),
    "transposed, groups": (
        arrays((4, 5, 5, 4), (3, 3, 2, 6)),
        {"lhs_dilation": (2, 2), "padding": ((2, 1), (1, 1)), "feature_group_count": 2},
    ),
    "transposed, depthwise": (
        arrays((2, 5, 6, 5), (3, 2, 1, 5)),
        {"lhs_dilation": (1, 2), "padding": ((0, 1), (1, 0)), "feature_group_count": 5},
    ),
    "transposed, 1 x 1": (arrays((2, 4, 5, 3), (1, 1, 3, 4)), {"lhs_dilation": (2, 2), "padding": ((0, 1), (1, 0))}),
    "half precision": (tuple(x.astype(jnp.bfloat16) for x in arrays((4, 8, 8, 1), (3, 3, 1, 8))), {}),
}

DEPTHWISE = {"feature_group_count": 5}
PRODUCT_CASES = {
    "depthwise": (arrays((4, 7, 6, 5), (3, 2, 1, 5)), DEPTHWISE),
    "depthwise, strides": (arrays((4, 7, 8, 5), (3, 3, 1, 5)), {"strides": (2, 3), **DEPTHWISE}),
    "depthwise, strides longer than the window": (arrays((2, 7, 8, 5), (2, 1, 1, 5)), {"strides": (3, 2), **DEPTHWISE}),
    "depthwise, dilation": (arrays((2, 8, 7, 5), (2, 3, 1, 5)), {"rhs_dilation": (2, 3), **DEPTHWISE}),
    "depthwise, uneven padding": (
        arrays((2, 8, 8, 5), (3, 3, 1, 5)), {"padding": ((3, 0), (-1, 2)), "strides": (2, 2), **DEPTHWISE}
    ),
    "depthwise, channels first": (arrays((2, 5, 4, 6), (5, 1, 2, 3)), {"order": "channels first", **DEPTHWISE}),
    "1 x 1": (arrays((4, 3, 5, 6), (1, 1, 6, 7)), {}),
    "1 x 1, strides": (arrays((2, 5, 6, 3), (1, 1, 3, 4)), {"strides": (2, 3)}),
    "1 x 1, padding": (arrays((2, 5, 6, 3), (1, 1, 3, 4)), {"strides": (2, 1), "padding": ((1, 2), (-1, 0))}),
    "1 x 1, channels first": (arrays((2, 3, 4, 5), (4, 3, 1, 1)), {"order": "channels first"}),
    "a window as large as the images": (arrays((2, 3, 4, 5), (3, 4, 5, 6)), {"padding": "VALID"}),
}  # fmt: skip


def derivatives(function, operands, tangents):
    """Forward, jvp, gradient and gradient of gradient by both operands."""

    def score(*operands):
        y = promote_float(function(*operands))
        return jnp.sum(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape) * y**3)

    gradient = jax.grad(score, (0, 1))
    return (
        jax.jvp(function, operands, tangents),
        jax.jvp(gradient, operands, tangents),
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("version", [(0, 10, 2), (0, 12, 0)], ids=str)
def test_all_derivatives_are_those_of_the_plain_convolution(name, version, on_version):
    """Without oneDNN thin images are convolved in blocks; with it products have barriers."""
    on_version(version)
    operands, options = CASES[name]
    run = partial(derivatives, partial(convolve, **options))
    plain = jax.jit(run)(operands, operands)
    fast = jax.jit(rewrite_convolutions(run))(operands, operands)
    half = operands[0].dtype == jnp.bfloat16
    # The parts of a weight gradient are rounded to the 8 bits of bfloat16 before they are added: up to three roundings
    # of the largest value (measured: 1.9).
    rtol, atol = (0, 3 * 2**-8) if half else (1e-5, 1e-5)

    def close(x, y):
        x, y = (np.asarray(v, np.float32) for v in (x, y))
        np.testing.assert_allclose(y, x, rtol=rtol, atol=atol * np.abs(x).max())

    jax.tree.map(close, plain, fast)


@pytest.mark.parametrize("name", PRODUCT_CASES)
def test_products_have_the_derivatives_of_the_plain_convolution(name):
    """In float64: they differ from it by the order of sums only."""
    operands, options = PRODUCT_CASES[name]
    with jax.enable_x64(True):
        operands = tuple(np.float64(x) for x in operands)
        run = partial(derivatives, partial(convolve, **options))
        plain, fast = (jax.jit(function)(operands, operands) for function in (run, rewrite_convolutions(run)))
        for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(fast), strict=True):
            assert y.dtype == x.dtype
            np.testing.assert_allclose(y, x, rtol=0, atol=1e-13 * np.abs(x).max())


@pytest.mark.parametrize("name", PRODUCT_CASES)
def test_depthwise_and_1x1_convolutions_and_their_gradients_become_products(name):
    operands, options = PRODUCT_CASES[name]

    def differentiate(*operands):
        return jax.vjp(partial(convolve, **options), *operands)[1](convolve(*operands, **options))

    assert len(plain_shapes_of(differentiate, *operands)) == 4
    left = shapes_of(differentiate, *operands)
    # The gradient by the images of a whole window is an ordinary convolution.
    assert len(left) == (1 if name == "a window as large as the images" else 0)


@pytest.mark.parametrize("name", ["depthwise, strides", "1 x 1"])
def test_products_of_bfloat16_are_summed_in_float32(name):
    operands, options = PRODUCT_CASES[name]
    halves = tuple(x.astype(jnp.bfloat16) for x in operands)

    def gradients(*operands):
        y, transpose = jax.vjp(partial(convolve, **options), *operands)
        return y, *transpose(jnp.ones_like(y))

    found = jax.jit(rewrite_convolutions(gradients))(*halves)
    for x, y in zip(gradients(*(x.astype(jnp.float32) for x in halves)), found, strict=True):
        assert y.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(y), x, rtol=2**-8, atol=1e-5)  # one rounding


def test_each_device_adds_the_weight_gradient_of_its_examples_and_sums_are_exchanged_once():
    operands, options = PRODUCT_CASES["depthwise, strides"]

    def gradient(kernel, images):
        return jax.grad(lambda kernel: (convolve(images, kernel, **options) ** 2).sum())(kernel)

    mesh = make_devices(4).mesh
    images = jax.device_put(operands[0], NamedSharding(mesh, PartitionSpec(AXIS)))
    kernel = jax.device_put(operands[1], NamedSharding(mesh, PartitionSpec()))
    program = jax.jit(rewrite_convolutions(gradient)).lower(kernel, images).compile()
    exchanges = [line for line in program.as_text().splitlines() if re.search(r"= .*all-(reduce|gather)\(", line)]
    assert len(exchanges) == 1
    np.testing.assert_allclose(program(kernel, images), jax.jit(gradient)(*operands[::-1]), rtol=1e-4)


def test_groups_are_convolved_in_a_loop_where_xla_is_slow(on_version):
    def count(groups, kernel):
        """Convolutions that are left outside of loops, forward and in both gradients."""
        images, kernel = arrays((2, 9, 9, 4), kernel)
        convolve_groups = partial(convolve, feature_group_count=groups)

        def differentiate(images, kernel):
            y, pull = jax.vjp(convolve_groups, images, kernel)
            return y, *pull(y)

        return [len(shapes_of(f, images, kernel)) for f in (convolve_groups, differentiate)]

    on_version((0, 10, 2))
    assert count(4, (8, 8, 1, 4)) == [1, 3]  # one channel each, and a large window
    assert count(4, (3, 3, 1, 8)) == [1, 1]  # the gradient by the images sums two channels
    assert count(2, (3, 3, 2, 4)) == [0, 0]
    on_version((0, 12, 0))  # oneDNN has groups, but no weight gradients
    assert count(2, (3, 3, 2, 4)) == [1, 2]


@pytest.mark.parametrize("name", ["patches", "patches of some pixels", "a stem", "a stem, cropped"])
def test_gradients_by_thin_images_have_no_zeros_between_pixels(name):
    (images, kernel), options = CASES[name]

    def differentiate(images, kernel):
        y, pull = jax.vjp(lambda images: convolve(images, kernel, **options), images)
        return pull(y)

    program = jax.make_jaxpr(rewrite_convolutions(differentiate))(images, kernel)
    found = [eqn.params["lhs_dilation"] for eqn in program.eqns if eqn.primitive.name == "conv_general_dilated"]
    # Those of patches are products of matrices.
    assert found == [(1, 1)] * (1 if "patches" in name else 2)
    plain = [eqn.params["lhs_dilation"] for eqn in plain_shapes_of(differentiate, images, kernel)]
    assert plain[1] == options["strides"]


def plain_shapes_of(function, *operands):
    return [eqn for eqn in jax.make_jaxpr(function)(*operands).eqns if eqn.primitive.name == "conv_general_dilated"]


def shapes_of(function, *operands):
    """The shapes of what convolutions take and give once rewritten."""
    program = jax.make_jaxpr(rewrite_convolutions(function))(*operands)
    return [
        (*(x.aval.shape for x in eqn.invars), eqn.outvars[0].aval.shape)
        for eqn in program.eqns
        if eqn.primitive.name == "conv_general_dilated"
    ]


def differentiate_by_weights(kernel, images):
    return jax.grad(lambda kernel: convolve(images, kernel).sum())(kernel)


@pytest.mark.parametrize(("batch", "parts"), [(8, 1), (31, 1), (32, 2), (63, 1), (64, 4), (66, 2), (256, 4)])
def test_weight_gradients_are_added_up_from_parts_of_large_batches(batch, parts):
    found = shapes_of(differentiate_by_weights, *arrays((3, 3, 5, 7), (batch, 6, 6, 5)))
    each = batch // parts
    assert found[1:] == [((5, 6, 6, each), (6, 6, each, 7), (5, 3, 3, 7))] * parts


def test_onednn_is_for_forward_passes_only(on_version):
    """XLA does not use it for reversed kernels, so the kernels of weight gradients are reversed."""
    kernel, images = arrays((3, 3, 5, 7), (64, 6, 6, 5))
    expected = differentiate_by_weights(kernel, images)
    for version, count in (((0, 12, 0), 4 * 2), ((0, 10, 2), 0)):
        on_version(version)
        rewritten = rewrite_convolutions(differentiate_by_weights)
        program = jax.make_jaxpr(rewritten)(kernel, images)
        assert sum(eqn.primitive.name == "rev" for eqn in program.eqns) == count
        np.testing.assert_allclose(rewritten(kernel, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="oneDNN is used with jax 0.12")
def test_xla_gives_onednn_no_weight_gradients():
    kernel, images = arrays((3, 3, 5, 7), (64, 6, 6, 5))
    both = compile_fast(
        lambda kernel, images: (convolve(images, kernel), differentiate_by_weights(kernel, images)), (kernel, images)
    ).as_text()
    assert both.count('custom_call_target="__onednn$convolution"') == 1
    assert both.count(" convolution(") == 4


def test_thin_images_are_convolved_in_blocks_without_onednn(on_version):
    on_version((0, 10, 2))
    (images, kernel), _ = CASES["grey images"]
    assert shapes_of(convolve, images, kernel) == [((4, 6, 6, 4), (3, 3, 4, 32), (4, 4, 4, 32))]


def test_a_part_of_the_batch_has_rows_of_every_device():
    """Rows 0, 4, 8, … are the first part, so that rows of a batch that is sharded over devices need not move."""
    operands = arrays((3, 3, 2, 3), (64, 4, 4, 2))
    program = jax.make_jaxpr(rewrite_convolutions(differentiate_by_weights))(*operands)
    (x, *_) = [x for eqn in program.eqns if eqn.primitive.name == "reshape" for x in eqn.outvars]
    assert x.aval.shape[:2] == (16, 4)  # [rows of a part, parts], in row-major order


@pytest.mark.parametrize("loop", ["scan", "while"])
def test_convolutions_in_loops(loop):
    """They are rewritten there too: outside the outermost program XLA does not bring them into order."""
    images, kernels = arrays((2, 6, 6, 3), (2, 3, 3, 3, 3))

    def function(x, kernels):
        if loop == "scan":
            return lax.scan(lambda x, k: (jnp.sin(convolve(x, k)), x.sum()), x, kernels)
        return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, convolve(c[1], kernels[0])), (0, x))[1]

    def gradients(x, kernels):
        return jax.grad(lambda x, kernels: jax.tree.leaves(function(x, kernels))[0].sum(), (0, 1))(x, kernels)

    for f in (function,) if loop == "while" else (function, gradients):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4),
            rewrite_convolutions(f)(images, kernels),
            f(images, kernels),
        )
        orders = {
            eqn.params["dimension_numbers"] for eqn in inner(jax.make_jaxpr(rewrite_convolutions(f))(images, kernels))
        }
        assert orders == {lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}


def inner(jaxpr):
    """The convolutions of a program, those of loops too."""
    for eqn in jaxpr.eqns:
        yield from [eqn] if eqn.primitive.name == "conv_general_dilated" else []
        for body in find_subjaxprs(eqn):
            yield from inner(body)


def options_of(function, *arguments):
    fast = FastConvolutions()
    jax.eval_shape(partial(fast.run, function), *arguments)
    return fast.compiler_options


def test_options_are_for_programs_with_convolutions(on_version):
    (images, kernel), _ = CASES["grey images"]
    on_version((0, 12, 0))
    assert options_of(jnp.dot, images[0, :, :, 0], images[1, :, :, 0]) is None
    assert options_of(convolve, images, kernel) == dict(WITH_ONEDNN)
    on_version((0, 10, 2))
    assert options_of(convolve, images, kernel) == dict(WITHOUT_YNN)


def test_no_options_if_xla_lacks_one(monkeypatch):
    for name in ("WITHOUT_YNN", "WITH_ONEDNN"):  # which of them is asked for depends on the version of JAX
        monkeypatch.setattr(xla_options, name, (("xla_cpu_no_such_option", True),))
    assert options_of(convolve, *CASES["grey images"][0]) is None


def test_flags_of_the_user_win(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
    assert options_of(convolve, *CASES["grey images"][0]) is None


def test_no_onednn_with_a_product_that_gets_no_barrier(on_version):
    on_version((0, 12, 0))
    hidden = jax.custom_jvp(lambda x: x @ x)
    hidden.defjvps(lambda t, value, x: 2 * x * t)

    def function(images, kernel):
        return convolve(images, kernel), hidden(images[0, :, :, 0])

    assert options_of(function, *CASES["grey images"][0]) == dict(WITHOUT_YNN)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "tanh", "sigmoid", "softplus", "elu", "leaky_relu"])
def test_options_change_rounding_only(activation):
    """With oneDNN jax 0.12 miscompiles x * sigmoid(x) that is fused to a convolution, or to a product."""
    act = getattr(nn, activation)
    images, kernel, dense, last = arrays((4, 8, 8, 3), (3, 3, 3, 16), (1024, 64), (64, 1))

    def loss(images, kernel, dense, last):
        x = act(convolve(images, kernel)).reshape(4, -1)
        return jnp.sum(act(x @ dense / 32) @ last)

    gradients = jax.grad(loss, (0, 1, 2, 3))
    fast = FastConvolutions()
    lowered = jax.jit(partial(fast.run, gradients)).lower(images, kernel, dense, last)
    found = lowered.compile(fast.compiler_options)(images, kernel, dense, last)
    for x, y in zip(jax.jit(gradients)(images, kernel, dense, last), found, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-3, atol=1e-4 * np.abs(x).max())


def test_a_program_without_convolutions_is_left_as_it_is(on_version):
    """Barriers behind its products made the wide network's step 1.4 times as long."""
    on_version((0, 12, 0))
    (x,) = arrays((4, 4))
    program = jax.make_jaxpr(rewrite_convolutions(lambda x: jnp.tanh(x @ x)))(x)
    assert [eqn.primitive.name for eqn in program.eqns] == ["dot_general", "tanh"]


@pytest.fixture
def step_of_a_network():
    """One gradient step of a small network as a function of its parameters, and these."""
    model = Cnn(features=(4, 8), dense=(), classes=3)
    images = RANDOM.integers(0, 256, (8, 12, 12, 1), np.uint8)

    def step(params):
        gradients = jax.grad(lambda params: (model.apply({"params": params}, images) ** 2).sum())(params)
        return jax.tree.map(lambda x, g: x - 0.01 * g, params, gradients)

    return step, model.init(jax.random.key(0), images)["params"]


def test_the_switch_leaves_a_step_as_written(monkeypatch, step_of_a_network):
    step, params = step_of_a_network
    written, rewritten = jax.make_jaxpr(step)(params), jax.make_jaxpr(rewrite_convolutions(step))(params)
    assert str(rewritten) != str(written)
    fast = jax.jit(rewrite_convolutions(step))(params)

    monkeypatch.setenv(xla_options.SWITCH, "1")  # so that it is taken back after the test
    xla_options.disable_fast_convolutions()
    assert str(jax.make_jaxpr(rewrite_convolutions(step))(params)) == str(written)
    assert options_of(step, params) is None
    assert xla_options.select_options(onednn=True) == ()
    plain = jax.jit(rewrite_convolutions(step))(params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), fast, plain)


def test_the_switch_is_an_environment_variable_read_by_every_program(monkeypatch, step_of_a_network):
    step, params = step_of_a_network
    written = str(jax.make_jaxpr(step)(params))
    for value, same in (("0", True), ("1", False)):
        monkeypatch.setenv("JAXCLF_FAST_CONVOLUTIONS", value)
        assert (str(jax.make_jaxpr(rewrite_convolutions(step))(params)) == written) == same
