"""Compare adaptive integrated gradients with the cheapest fixed quadrature rule of the same tolerance on every image.

    python benchmarks/adaptive.py runs/mnist_cnn --images 1000

The error of an image is the sum of absolute differences to the attributions of a midpoint rule with many steps. The
number of steps of each fixed rule is searched on the images on which the adaptive rule needs the most evaluations, and
then checked on all images. The search for a rule ends when it needs more steps than the best rule so far.
"""

import argparse

import numpy as np

import jaxclf
from jaxclf import saliency
from jaxclf.inference.trained_model import TrainedModel

RULES = ("gauss_legendre", "midpoint", "trapezoid")
HARDEST = 50
FEW = 5  # hardest images per batch, small because the first batch usually exceeds the tolerance already
BATCH = 250


def explain(run: TrainedModel, images: np.ndarray, method: saliency.Method) -> saliency.Attribution:
    """Return the attributions of all images as NumPy arrays."""
    parts = [method(run.model, run.variables, images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    fields = (None if parts[0][i] is None else np.concatenate([part[i] for part in parts]) for i in range(5))
    return saliency.Attribution(*fields)


def compute_excess(a: saliency.Attribution, exact: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the error of each image divided by the allowed error."""
    allowed = tolerance * np.maximum(1, np.abs(a.values.sum(axis=(1, 2, 3)) - a.delta))
    return np.maximum(np.abs(a.values - exact).sum(axis=(1, 2, 3)), np.abs(a.delta)) / allowed


def find_fewest_steps(
    run: TrainedModel, images: np.ndarray, exact: np.ndarray, rule: str, tolerance: float, most: int
) -> int | None:
    """Find, by bisection, the fewest steps of a fixed rule that keep the tolerance on all images; None beyond `most`.

    The hardest images come first, so that too few steps are rejected early.
    """

    def keeps(steps: int) -> bool:
        method = saliency.IntegratedGradients(steps=steps, rule=rule)
        parts = (slice(i, i + FEW) for i in range(0, len(images), FEW))
        return all(
            compute_excess(explain(run, images[part], method), exact[part], tolerance).max() <= 1 for part in parts
        )

    low, high = 2, most
    if not keeps(high):
        return None
    while high - low > 4:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high


def main() -> None:
    """Print the evaluations and errors of the adaptive rule and of each fixed rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a trained run")
    parser.add_argument("--images", type=int, default=1_000, help="number of test images")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--exact-steps", type=int, default=4_096, help="steps of the reference")
    options = parser.parse_args()
    run = jaxclf.load(options.run)
    images = run.splits.test.images[: options.images]
    adaptive = explain(run, images, saliency.IntegratedGradients(rule="adaptive", tolerance=options.tolerance))
    exact = explain(run, images, saliency.IntegratedGradients(steps=options.exact_steps, rule="midpoint")).values
    errors = compute_excess(adaptive, exact, options.tolerance)
    evaluations = adaptive.evaluations
    mean, median, most = evaluations.mean(), np.median(evaluations), evaluations.max()
    print(f"adaptive: {mean:.0f} evaluations per image, median {median:.0f}, at most {most}")
    print(f"its error is at most {errors.max():.2f} of the allowed error, median {np.median(errors):.2f}")
    hard = np.argsort(-evaluations)[:HARDEST]
    most = options.exact_steps // 2
    for rule in RULES:
        steps = find_fewest_steps(run, images[hard], exact[hard], rule, options.tolerance, most)
        if steps is None:
            print(f"{rule}: more than {most + 2} evaluations", flush=True)
            continue
        most = steps
        rest = compute_excess(
            explain(run, images, saliency.IntegratedGradients(steps=steps, rule=rule)), exact, options.tolerance
        )
        print(
            f"{rule}: {steps + 2} evaluations, or up to 3 fewer; {np.sum(rest > 1)} of all images need more", flush=True
        )


if __name__ == "__main__":
    main()
