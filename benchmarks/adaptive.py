"""Adaptive integrated gradients against the smallest fixed rule that keeps the same tolerance on every image.

    python benchmarks/adaptive.py runs/mnist_cnn --images 1000

The errors of the values, summed without signs, are those from a midpoint rule of many steps. Fixed rules are searched
on the images that the adaptive one found hardest, and then tried on all. A rule that needs more than the best so far is
not searched further.
"""

import argparse

import numpy as np

import jaxclf
from jaxclf import saliency
from jaxclf.inference.trained_model import TrainedModel

RULES = ("gauss_legendre", "midpoint", "trapezoid")
HARDEST = 50
FEW = 5  # of them at a time: mostly the first already exceed the tolerance
BATCH = 250


def explain(run: TrainedModel, images: np.ndarray, method: saliency.Method) -> saliency.Attribution:
    """The attributions of all images, in NumPy."""
    parts = [method(run.model, run.variables, images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    fields = (None if parts[0][i] is None else np.concatenate([part[i] for part in parts]) for i in range(5))
    return saliency.Attribution(*fields)


def excess(a: saliency.Attribution, exact: np.ndarray, tolerance: float) -> np.ndarray:
    """The error of each image as a share of what is allowed."""
    allowed = tolerance * np.maximum(1, np.abs(a.values.sum(axis=(1, 2, 3)) - a.delta))
    return np.maximum(np.abs(a.values - exact).sum(axis=(1, 2, 3)), np.abs(a.delta)) / allowed


def smallest(
    run: TrainedModel, images: np.ndarray, exact: np.ndarray, rule: str, tolerance: float, most: int
) -> int | None:
    """The fewest steps of a fixed rule with which no image exceeds the tolerance, by bisection; None beyond `most`.

    The hardest images come first: with too few steps the others are not asked about.
    """

    def keeps(steps: int) -> bool:
        method = saliency.IntegratedGradients(steps=steps, rule=rule)
        parts = (slice(i, i + FEW) for i in range(0, len(images), FEW))
        return all(excess(explain(run, images[part], method), exact[part], tolerance).max() <= 1 for part in parts)

    low, high = 2, most
    if not keeps(high):
        return None
    while high - low > 4:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high


def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a trained run")
    parser.add_argument("--images", type=int, default=1_000, help="how many test images")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--exact-steps", type=int, default=4_096, help="steps of the rule that errors are taken from")
    options = parser.parse_args()
    run = jaxclf.load(options.run)
    images = run.splits.test.images[: options.images]
    adaptive = saliency.IntegratedGradients(rule="adaptive", tolerance=options.tolerance)
    found = explain(run, images, adaptive)
    exact = explain(run, images, saliency.IntegratedGradients(steps=options.exact_steps, rule="midpoint")).values
    errors = excess(found, exact, options.tolerance)
    taken = found.evaluations
    print(f"adaptive: {taken.mean():.0f} evaluations an image, median {np.median(taken):.0f}, at most {taken.max()}")
    print(f"its error is at most {errors.max():.2f} of what is allowed, {np.median(errors):.2f} in the median")
    hard = np.argsort(-taken)[:HARDEST]
    most = options.exact_steps // 2
    for rule in RULES:
        steps = smallest(run, images[hard], exact[hard], rule, options.tolerance, most)
        if steps is None:
            print(f"{rule}: more than {most + 2} evaluations", flush=True)
            continue
        most = steps
        rest = excess(
            explain(run, images, saliency.IntegratedGradients(steps=steps, rule=rule)), exact, options.tolerance
        )
        print(
            f"{rule}: {steps + 2} evaluations, or up to 3 fewer; {np.sum(rest > 1)} of all images need more", flush=True
        )


if __name__ == "__main__":
    main()
