"""Measure how well the ranking of `jaxclf audit` finds training labels that are changed at random.

python benchmarks/label_errors.py FOLDER BUNDLE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from jaxclf.cli.load_run import load_folder
from jaxclf.cli.options import AuditOptions
from jaxclf.inference.features.audit import inspect_features, join_splits
from jaxclf.inference.features.cache import compute_split_features
from jaxclf.inference.features.selection import Labeled

RESAMPLES = 1_000


def measure_ranking(wrong: np.ndarray) -> tuple[float, float]:
    """Return the average precision and the highest recall with a precision of at least 0.5 of a ranking."""
    found = np.cumsum(wrong)
    precision = found / np.arange(1, len(wrong) + 1)
    enough = found[precision >= 0.5]
    return float(precision[wrong].mean()), float(enough.max() / found[-1]) if len(enough) else 0.0


def estimate_intervals(wrong: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the 95 % bootstrap intervals [2, measures] of both measures, over images."""
    # A sorted resample of the places of a ranking is the ranking of the resampled images.
    draws = (np.sort(random.integers(0, len(wrong), len(wrong))) for _ in range(RESAMPLES))
    return np.quantile([measure_ranking(wrong[draw]) for draw in draws], (0.025, 0.975), axis=0)


def main() -> None:
    """Print a row for each seed and order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="image folder whose labels are taken as right")
    parser.add_argument("bundle", type=Path, help="a bundle, or the name of one such as lite0")
    parser.add_argument("--fraction", type=float, default=0.05, help="of the training labels that are changed")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    network, splits = load_folder(AuditOptions(folder=options.folder, bundle=options.bundle, workdir=Path("unused")))
    features = np.concatenate(list(compute_split_features(network, splits).values()))
    labels, files = join_splits(splits)
    count, classes = len(splits.train), len(splits.train.class_names)  # training images come first
    print("seed  order   average precision        recall at precision 0.5  likely errors")
    for seed in range(options.seeds):
        random = np.random.default_rng(seed)
        changed = random.choice(count, round(options.fraction * count), replace=False)
        given = labels.copy()
        given[changed] = (labels[changed] + random.integers(1, classes, len(changed))) % classes
        audit = inspect_features(Labeled(features, given, classes), files, folds=5, neighbors=10, similarity=0.75)
        ranked = audit.label_order[audit.label_order < count]
        for name, order in (("audit", ranked), ("random", random.permutation(count))):
            wrong = np.isin(order, changed)
            (precision, recall), (low, high) = measure_ranking(wrong), estimate_intervals(wrong, random)
            texts = [f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, a, b in zip((precision, recall), low, high, strict=True)]
            found = set(audit.label_order[: audit.error_count].tolist())
            hits = f"{len(found & set(changed.tolist()))} of {len(found)}" if name == "audit" else ""
            print(f"{seed:>4}  {name:<6}  {texts[0]:<23}  {texts[1]:<23}  {hits}", flush=True)


if __name__ == "__main__":
    main()
