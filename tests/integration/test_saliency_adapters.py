"""Models of other frameworks: every method gives on them what it gives on the same network in Flax Linen."""

import re
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from support import frameworks
from support.frameworks import CHEAPEST, IMAGES, MODULES, find_import_error, run_python

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.methods.grad_cam import ActivationMap

ROOT = Path(__file__).parents[2]
LAYERED = [name for name, method in CHEAPEST.items() if isinstance(method, ActivationMap)] + [
    "GuidedGradCam",
    "Conductance",
]
METHODS = [name for name in CHEAPEST if name not in LAYERED]
# Equinox puts channels first, and FullGrad takes the middle axes of features for height and width.
SUMS_ONLY = {("equinox", "FullGrad")}


@pytest.fixture(params=MODULES)
def framework(request):
    if error := find_import_error(request.param):
        pytest.skip(f"{request.param} cannot be imported: {error}")
    return request.param


@cache
def explain_linen():
    return frameworks.explain_all(*frameworks.make_linen(), METHODS)


def explain(framework, folder, seed_offset):
    if framework != "keras":
        return frameworks.explain_all(*getattr(frameworks, f"make_{framework}")(), METHODS)
    done = run_python("-m", "support.seeds", seed_offset, "support.frameworks", folder / "values.npz", *METHODS)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "values.npz") as values:
        return dict(values)


def test_every_method_gives_what_it_gives_on_the_same_network_in_linen(framework, tmp_path, pytestconfig):
    values = explain(framework, tmp_path, pytestconfig.option.seed_offset)
    for name, expected in explain_linen().items():
        given = values[name]
        if (framework, name) in SUMS_ONLY:
            given, expected = given.sum(axis=(1, 2, 3)), expected.sum(axis=(1, 2, 3))
        assert np.abs(expected).max() > 1e-3, name
        np.testing.assert_allclose(given, expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_the_examples_of_the_documentation_run(framework):
    blocks = re.findall("```python\n(.*?)```", (ROOT / "docs/saliency.md").read_text(encoding="utf-8"), re.S)
    (example,) = (block for block in blocks if f"saliency.adapt_{framework}(" in block)
    before = "import jax, numpy as np\nfrom jaxclf import saliency\nimages = np.full((2, 6, 6, 1), 99, np.uint8)\n"
    done = run_python("-c", f"{before}{example}assert a.values.shape == images.shape\nassert abs(a.values).max() > 0")
    assert done.returncode == 0, done.stderr


def test_methods_that_need_layers_say_so():
    model, variables = frameworks.make_nnx()
    for name in LAYERED:
        with pytest.raises(UserError, match="AdaptedModel is not a Linen module"):
            CHEAPEST[name](model, variables, IMAGES)


def test_models_of_equal_structure_share_a_program_and_the_module_is_left_as_it_is():
    nnx = pytest.importorskip("flax.nnx")
    net = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.Linear(4, 3, rngs=nnx.Rngs(1)))
    first, second = saliency.adapt_nnx(net)[0], saliency.adapt_nnx(nnx.clone(net))[0]
    assert first == second and hash(first) == hash(second)
    assert not net.layers[0].deterministic


def test_haiku_functions_with_and_without_state_and_random_keys():
    hk = pytest.importorskip("haiku")
    images = np.ones((2, 3), np.float32)
    for transform in (hk.transform, hk.transform_with_state):
        for wrap in (lambda x: x, hk.without_apply_rng):
            transformed = wrap(transform(lambda x: hk.Linear(3)(x)))
            given = transformed.init(jax.random.key(0), images)
            given = given if transform is hk.transform_with_state else (given,)
            model, variables = saliency.adapt_haiku(transformed, *given)
            np.testing.assert_allclose(model(variables, images), images @ given[0]["linear"]["w"], atol=1e-6)


def test_another_backend_of_keras_is_named():
    if error := find_import_error("keras"):
        pytest.skip(f"keras cannot be imported: {error}")
    done = run_python("-c", "from jaxclf import saliency; saliency.adapt_keras(None)", backend="numpy")
    assert 'UserError: the backend of Keras is numpy: set KERAS_BACKEND="jax"' in done.stderr


def test_attention_is_found_in_every_framework(framework):
    """Three layers; the relevance of four by four patches and, with NNX, of a class token."""
    names = {"nnx": "NNX", "equinox": "Equinox", "haiku": "Haiku", "keras": "Keras"}
    program = f"""if True:
        import jax, numpy as np
        from jaxclf import saliency
        from jaxclf.saliency.methods.attention import make_zeros
        from support.coverage_models import MODELS
        model, variables, shape = MODELS["{names[framework]} transformer"]()
        random = np.random.default_rng(0)
        variables = jax.tree.map(lambda x: 0.3 * random.standard_normal(x.shape, np.float32), variables)
        images = random.random((2, *shape[1:]), np.float32)
        print(len(make_zeros(lambda x: model(variables, x), images)))
        for method in (saliency.AttentionRollout(), saliency.GenericAttention()):
            values = method(model, variables, images, 1).values
            print(*values.shape, float(values.min()), float(values.max()), float(values[0].sum()))
    """
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr
    count, *rows = done.stdout.splitlines()
    assert count == "3"
    for row in rows:
        assert row.startswith("2 4 4 1 ")
        low, high, _ = map(float, row.split()[4:])
        assert 0 <= low < high
    share = float(rows[0].split()[-1])
    assert 0.5 < share < 1 if framework == "nnx" else abs(share - 1) < 1e-5
