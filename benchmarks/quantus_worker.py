"""Worker of benchmarks/quantus_measures.py: time Quantus' measures on the same network in PyTorch.

Reads lines of JSON, [measure, method], and replies to each with the seconds of one call and the mean score. Needs
quantus, torch and captum, not jaxclf.
"""

import contextlib
import io
import json
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import quantus
import torch
from captum import attr
from captum_methods import build_network
from quantus.functions.similarity_func import correlation_spearman
from quantus.helpers import utils

np.trapz = np.trapezoid  # as IROF needs it: NumPy 2.4 has no trapz
COMMON = {"abs": False, "normalise": False, "disable_warnings": True}


def explain(model, inputs, targets, method: str, **_) -> np.ndarray:
    """Return the maps [b, 1, h, w] of one of captum's methods."""
    images = torch.as_tensor(np.asarray(inputs, np.float32)).requires_grad_()
    targets = torch.as_tensor(np.asarray(targets))
    convolutions = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)]
    if method == "gradient":
        maps = attr.Saliency(model).attribute(images, targets, abs=False)
    elif method == "gradient-times-input":
        maps = attr.InputXGradient(model).attribute(images, targets)
    elif method == "integrated-gradients":
        maps = attr.IntegratedGradients(model).attribute(images, target=targets, n_steps=50, internal_batch_size=3200)
    elif method == "smooth-grad":
        spread = 0.15 * float(images.detach().max() - images.detach().min())
        smooth = attr.NoiseTunnel(attr.Saliency(model))
        maps = smooth.attribute(images, nt_samples=25, stdevs=spread, target=targets, abs=False)
    elif method == "deep-lift":
        maps = attr.DeepLift(model).attribute(images, target=targets)
    elif method == "grad-cam":
        maps = attr.LayerGradCam(model, convolutions[-1]).attribute(images, targets, relu_attributions=True)
        maps = torch.nn.functional.interpolate(maps, size=images.shape[2:], mode="bilinear")
    else:
        window = {"sliding_window_shapes": (images.shape[1], 4, 4), "strides": (1, 2, 2)}
        maps = attr.Occlusion(model).attribute(images, target=targets, **window)
    return maps.detach().numpy()


def build_metrics(settings: dict) -> dict:
    """Return functions that build each metric, by the name of its class, and the arguments of its call."""
    n, radius = settings["samples"], settings["radius"]
    nearby = {"nr_samples": n, "perturb_func_kwargs": {"lower_bound": -radius, "upper_bound": radius}, **COMMON}
    spearman = {"similarity_func": correlation_spearman, **COMMON}
    flipping = {"features_in_step": 28 * 28 // settings["steps"], "perturb_baseline": 0.0, **COMMON}
    correlation = {"nr_runs": settings["subsets"], "subset_size": settings["subset_size"], "perturb_baseline": 0.0}
    infidelity = {"perturb_patch_sizes": [4], "n_perturb_samples": settings["perturbations"] // 49}
    probability, plain = {"softmax": True}, {}
    return {
        "Sparseness": (partial(quantus.Sparseness, **COMMON | {"abs": True}), plain),
        "Complexity": (partial(quantus.Complexity, **COMMON | {"abs": True}), plain),
        **{
            name: (partial(getattr(quantus, name), **COMMON), plain)
            for name in ("PointingGame", "RelevanceMassAccuracy", "RelevanceRankAccuracy", "AUC")
        },
        "TopKIntersection": (partial(quantus.TopKIntersection, k=settings["k"], **COMMON), plain),
        "PixelFlipping": (partial(quantus.PixelFlipping, **flipping), probability),
        "ROAD": (partial(quantus.ROAD, percentages=list(range(1, 100, 2)), noise=0.01, **COMMON), plain),
        "IROF": (partial(quantus.IROF, perturb_baseline=0.0, **COMMON), probability),
        "FaithfulnessCorrelation": (partial(quantus.FaithfulnessCorrelation, **correlation, **COMMON), plain),
        "Infidelity": (partial(quantus.Infidelity, perturb_baseline=0.0, **infidelity, **COMMON), plain),
        "MaxSensitivity": (partial(quantus.MaxSensitivity, **nearby), plain),
        "LocalLipschitzEstimate": (
            partial(
                quantus.LocalLipschitzEstimate,
                nr_samples=n,
                perturb_func=quantus.perturb_func.batch_uniform_noise,
                perturb_func_kwargs=nearby["perturb_func_kwargs"],
                **COMMON,
            ),
            plain,
        ),
        "RelativeInputStability": (partial(quantus.RelativeInputStability, **nearby), plain),
        "RelativeOutputStability": (partial(quantus.RelativeOutputStability, **nearby), plain),
        "RelativeRepresentationStability": (
            partial(quantus.RelativeRepresentationStability, layer_names=["3"], **nearby),
            plain,
        ),
        "MPRT": (partial(quantus.MPRT, layer_order="top_down", **spearman), plain),
        "SmoothMPRT": (partial(quantus.SmoothMPRT, layer_order="top_down", nr_samples=n, **spearman), plain),
        "EfficientMPRT": (partial(quantus.EfficientMPRT, **spearman), plain),
        "RandomLogit": (partial(quantus.RandomLogit, num_classes=10, **spearman), plain),
        "InputInvariance": (partial(quantus.InputInvariance, input_shift=-1, **COMMON), plain),
    }


def average(scores) -> float:
    """Return the mean of what a metric returns: a list, or a dictionary by layer or percentage."""
    if isinstance(scores, dict):
        scores = [score for name, score in scores.items() if name != "original"]
    return float(np.nanmean(np.asarray(scores, np.float64)))


def main() -> None:
    """Reply to requests until the end of the input."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    arrays = dict(np.load(folder / "model.npz"))
    model = build_network({name: x for name, x in arrays.items() if not name.startswith("map ")})
    images, mask = arrays["images"].transpose(0, 3, 1, 2).copy(), arrays["mask"][:, None]
    cells = np.arange(images.shape[2]) * settings["cells"] // images.shape[2]
    segments = cells[:, None] * settings["cells"] + cells[None, :]
    utils.get_superpixel_segments = lambda img, segmentation_method: segments
    quantus.explain = explain  # SmoothMPRT ignores explain_func
    metrics = build_metrics(settings)
    for line in sys.stdin:
        measure, method = json.loads(line)
        build, options = metrics[measure]
        maps = arrays[f"map {method}"].transpose(0, 3, 1, 2).copy()
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = build()(
                model=model,
                x_batch=images.copy(),
                y_batch=arrays["targets"],
                a_batch=maps,
                s_batch=mask,
                channel_first=True,
                explain_func=explain,
                explain_func_kwargs={"method": method},
                batch_size=len(images),
                **options,
            )
        print(json.dumps([time.perf_counter() - began, average(scores)]), flush=True)


if __name__ == "__main__":
    main()
