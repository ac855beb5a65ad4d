"""Counts of the operations between image and logits that have a rule in a saliency method.

`KERAS_BACKEND=jax PYTHONPATH=tests python -m support.coverage` prints the table of docs/saliency.md, and with names of
models their counts as JSON.
"""

import json
import sys
from collections import Counter

import jax
import jax.numpy as jnp
from support.coverage_models import MODELS

from jaxclf.errors import UserError
from jaxclf.saliency.methods.balanced_rules import Balancer, Differentiated
from jaxclf.saliency.methods.deep_lift_rules import Differences, Pair
from jaxclf.saliency.methods.lrp_layer_rules import LayerRules
from jaxclf.saliency.methods.lrp_rules import Relevances, Relevant
from jaxclf.saliency.methods.primitives import COMPARISONS, CUSTOM_DERIVATIVES, PRODUCTS, REARRANGEMENTS, SUMS
from jaxclf.saliency.methods.relu import ReluReplacer, is_custom_relu
from jaxclf.saliency.query import bind_variables
from jaxclf.xla.interpreter import Interpreter, Traced, bind, get_body, is_traced

METHODS = ("Lrp", "DeepLift", "Balanced", "GuidedBackprop", "FullGrad")
# Of degree 1 in the image and the biases together, or constant almost everywhere.
EXACT_IN_FULLGRAD = REARRANGEMENTS | SUMS | COMPARISONS | {
    "abs", "argmax", "max", "min", "reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "select_n",
    "stop_gradient",
}  # fmt: skip


@jax.tree_util.register_dataclass
class OnPath(Traced):
    """A value that depends on the image."""


class Path(Interpreter):
    """Counts the equations whose inputs depend on the image, by primitive; in `inexact` those that are not exact in
    FullGrad."""

    inlines = True

    def __init__(self):
        self.found, self.inexact = Counter(), Counter()

    def process_primitive(self, eqn, arguments):
        name = eqn.primitive.name
        if name in CUSTOM_DERIVATIVES and not is_custom_relu(eqn, ("relu",)):
            return self.evaluate(get_body(eqn), arguments)
        self.found[name] += 1
        one = sum(map(is_traced, arguments)) == 1
        linear = name in PRODUCTS or (name == "div" and is_traced(arguments[0]))
        if not (name in EXACT_IN_FULLGRAD or (linear and one) or is_custom_relu(eqn)):
            self.inexact[name] += 1
        outputs = bind(eqn, arguments)
        return list(map(OnPath, outputs)) if eqn.primitive.multiple_results else OnPath(outputs)


def make_counter(interpreter):
    """The interpreter, which counts equations without a rule in `missing` by primitive, and goes on."""

    class Counting(type(interpreter)):
        inlines = True

        def process_primitive(self, eqn, arguments):
            try:
                return super().process_primitive(eqn, arguments)
            except UserError:
                self.missing[eqn.primitive.name] += 1
                outputs = bind(eqn, arguments)
                return list(map(self.lift, outputs)) if eqn.primitive.multiple_results else self.lift(outputs)

    interpreter.__class__, interpreter.missing = Counting, Counter()
    return interpreter


def count_coverage(model, variables, shape):
    """The number of equations on the path from image to logits, and those without a rule by method and primitive."""

    def trace(interpreter, make_input):
        def run(variables, image):
            interpreter.run(bind_variables(model, variables), make_input(image))

        jax.eval_shape(run, variables, jax.ShapeDtypeStruct(shape, jnp.float32))
        return interpreter

    path, relus = trace(Path(), OnPath), make_counter(ReluReplacer(jax.nn.relu))
    rules = {
        "Lrp": (make_counter(Relevances(LayerRules(None, {}), 1e-9)), lambda x: Relevant(x, jnp.ones_like(x))),
        "DeepLift": (make_counter(Differences()), lambda x: Pair(x, x, x)),
        "GuidedBackprop": (relus, lambda x: x),
        "Balanced": (make_counter(Balancer()), Differentiated),
    }
    missing = {name: dict(trace(*rule).missing) for name, rule in rules.items()}
    counts = {"equations": path.found.total(), "relus": relus.found}
    return counts | {"missing": missing | {"FullGrad": dict(path.inexact)}}


def print_table():
    print(f"| model | equations | {' | '.join(METHODS)} |\n|{'---|' * (2 + len(METHODS))}")
    total, covered = 0, Counter()
    for name, make in MODELS.items():
        counts = count_coverage(*make())
        equations, cells = counts["equations"], []
        total += equations
        for method in METHODS:
            found = equations - sum(counts["missing"][method].values())
            covered[method] += found
            cells.append(f"{100 * found / equations:.4g} %")
            if method == "GuidedBackprop" and not counts["relus"]:
                cells[-1] = "no ReLU"
        print(f"| {name} | {equations:,} | {' | '.join(cells)} |", flush=True)
    cells = [f"{100 * covered[method] / total:.4g} %" for method in METHODS]
    print(f"| all {len(MODELS)} | {total:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if names := sys.argv[1:]:
        print(json.dumps({name: count_coverage(*MODELS[name]()) for name in names}))
    else:
        print_table()
