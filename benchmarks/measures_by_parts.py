"""Test whether measures of saliency maps rank the right maps first and random maps last, on images with known parts.

    python benchmarks/measures_by_parts.py runs/cartoons_cnn

Each measure ranks the maps of several methods, maps of the exact Shapley values of the parts ("truth"), and noise. A
measure is right if the truth is first and noise last; Kendall's tau compares its ranking of the methods with that by
the rank correlation with the Shapley values (s2 of `jaxclf benchmark-saliency`).
"""

from __future__ import annotations

import argparse

import jax.numpy as jnp
import numpy as np

import jaxclf
from jaxclf import saliency
from jaxclf.benchmark.parts import BACKGROUNDS, PaddedPrediction, find_characters
from jaxclf.datasets.parts import draw_backgrounds, sample_parts_images
from jaxclf.random import make_example_keys
from jaxclf.reporting.tables import print_rows
from jaxclf.saliency.parts.maps import draw_noise, draw_part_values, sum_over_parts
from jaxclf.saliency.parts.results import compute_kendall_tau
from jaxclf.saliency.parts.scores import correlate_ranks
from jaxclf.saliency.parts.truth import compute_truth

METHODS = {
    "gradient": saliency.Gradient(),
    "gradient-times-input": saliency.GradientTimesInput(),
    "integrated-gradients": saliency.IntegratedGradients(steps=32),
    "expected-gradients": saliency.ExpectedGradients(),
    "smooth-grad": saliency.SmoothGrad(),
    "deep-lift": saliency.DeepLift(),
    "lrp": saliency.Lrp(),
    "grad-cam": saliency.GradCam(upsample="bilinear"),
    "layer-cam": saliency.LayerCam(upsample="bilinear"),
    "occlusion": saliency.Occlusion(window=8, stride=4),
    "rise": saliency.Rise(samples=500),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of a config of drawn characters")
    parser.add_argument("--images", type=int, default=36)
    options = parser.parse_args()
    run = jaxclf.load(options.run)
    images = sample_parts_images(options.images, find_characters(run))
    predict, backgrounds = PaddedPrediction(run), draw_backgrounds(BACKGROUNDS, seed=0)
    truths = [compute_truth(image, predict, backgrounds) for image in images]
    pixels, labels = np.stack([image.pixels for image in images]), np.array([image.label for image in images])
    explained = {name: run.explain(method, pixels, labels).values.sum(axis=-1) for name, method in METHODS.items()}
    pairs = list(zip(images, truths, strict=True))
    maps = {
        "truth": np.stack([draw_part_values(image, truth.shapley, truth.clutter) for image, truth in pairs]),
        **explained,
        "random": np.stack([draw_noise(image, 0) for image in images]),
    }
    by_parts = {
        name: np.mean(
            [
                correlate_ranks(sum_over_parts(image, values).parts, truth.shapley)
                for (image, truth), values in zip(pairs, of, strict=True)
            ]
        )
        for name, of in maps.items()
    }
    keys = make_example_keys(run.config.seed, np.arange(len(images)))
    rows = [("s2 of Parts", *_describe_ranking(by_parts, by_parts))]
    for name, measure in saliency.MEASURES.items():
        sign = 1 if measure.higher_is_better else -1
        means = {}
        for method, of in maps.items():
            zeros = jnp.zeros(len(images))
            a = saliency.Attribution(jnp.asarray(of[..., None], jnp.float32), zeros, None, None, zeros)
            values = measure(run.model, run.variables, pixels, a, key=keys, targets=labels)
            means[method] = sign * float(np.mean(values))
        rows.append((name, *_describe_ranking(means, by_parts)))
    print(f"{len(images)} images, {len(maps)} maps of each")
    print_rows(("measure", "rank of the truth", "rank of noise", "best method", "tau with s2"), rows)


def _describe_ranking(means: dict[str, float], by_parts: dict[str, float]) -> tuple[str, ...]:
    """Return the ranks of the truth and of noise among all maps, the best method, and the agreement with s2."""
    truth, noise = means["truth"], means["random"]
    others = [means[name] for name in METHODS]
    tau = compute_kendall_tau(*(np.array([of[name] for name in METHODS]) for of in (means, by_parts)))
    # Of tied maps the truth is the last and noise the first, so that a constant measure is not right.
    first = 1 + sum(value >= truth for value in (*others, noise))
    last = 1 + sum(value > noise for value in (*others, truth))
    best = max(METHODS, key=lambda name: means[name])
    return str(first), str(last), best, "" if tau is None else f"{tau:.2f}"


if __name__ == "__main__":
    main()
