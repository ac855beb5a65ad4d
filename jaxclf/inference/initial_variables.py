"""The variables that a run starts from, where they are not random: pretrained weights, or computed from images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all
from jaxtyping import Float, Int

from jaxclf.augment import compute_input_shape, transform_images
from jaxclf.config import Config
from jaxclf.config_io import flatten, to_json
from jaxclf.datasets import Resizing
from jaxclf.datasets.decoding import ImageFiles
from jaxclf.errors import UserError, require
from jaxclf.inference.export import flatten_weights
from jaxclf.inference.features.cache import compute_split_features
from jaxclf.inference.features.folds import draw_folds
from jaxclf.inference.features.selection import Labeled, compute_scale, cross_validate
from jaxclf.inference.features.study import fit_all
from jaxclf.inference.import_weights import read_package
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.progress import show_status
from jaxclf.models.calling import InitializedFromImages, initialize_model
from jaxclf.pretrained.convert import convert_weights
from jaxclf.pretrained.initial import Pretrained, hash_variables
from jaxclf.pretrained.packages import PACKAGES
from jaxclf.pretrained.readers import read_weights
from jaxclf.random import make_key
from jaxclf.training.distributed import main_process_first
from jaxclf.types import Split, Splits, Variables

EXAMPLES = 1_000  # training images that a model is initialized from, at most
FOLDS = 5  # of the cross-validation that chooses the penalty of a fitted last layer, at most


def load_initial_variables(config: Config, splits: Splits) -> Variables | None:
    """Load the weights that a config starts from, or compute those that its model derives from training images.

    Args:
        config: The config of the run.
        splits: Its data. Only training images are used: for `head="probe"`, whose last layer is fitted to them, and by
            models that are `InitializedFromImages`.

    Returns:
        The variables of the model; None if all are random.

    Raises:
        UserError: If the weights are missing, have another digest or do not fit the model.
    """
    if config.init is None:
        model = config.model
        return _initialize_from_images(config, splits.train) if isinstance(model, InitializedFromImages) else None
    classes = [path for name, path in flatten(to_json(config)).items() if name.rpartition(".")[2] == "class"]
    arrays = read_arrays(config.init, tuple({path.rpartition(".")[0] for path in classes}))
    shape = compute_input_shape(config.evaluation_transform, splits.train.image_shape)
    head = "keep" if config.init.head == "keep" else "new"
    variables = convert_weights(config.model, shape, arrays, head, config.seed).variables
    return _fit_head(config, splits, variables) if config.init.head == "probe" else variables


def _initialize_from_images(config: Config, train: Split) -> Variables:
    """Return the random variables of a model with those that follow from training images."""
    images = transform_images(config.evaluation_transform, train.images[train.sample_indices(EXAMPLES)])
    variables = jax.jit(lambda key: initialize_model(config.model, key, images[:1])[1])(make_key(config.seed, "init"))
    # Rounding may differ between machines, and all processes have to start alike.
    return jax.device_get(broadcast_one_to_all(config.model.initialize_from_images(variables, images)))


def read_arrays(init: Pretrained, imports: tuple[str, ...] = ()) -> Mapping[str, np.ndarray]:
    """Return the arrays of pretrained weights by name, after their digest is checked.

    Args:
        init: The weights.
        imports: Modules outside jaxclf that define classes of the config of a run.

    Raises:
        UserError: If there are no such weights, their digest is not that of the config, or the config has none.
    """
    path = Path(init.source).expanduser()
    if path.is_dir():
        variables = TrainedModel.load(path, imports=imports).variables
        arrays, found = flatten_weights(variables), hash_variables(variables)
    else:
        of_package = init.source in PACKAGES and not path.exists()
        weights = read_package(init.source)[0] if of_package else read_weights(path)
        arrays, found = weights.arrays, weights.sha256
    require(bool(init.sha256), f'init has no digest of {init.source}; if you trust it, set sha256="{found}"')
    if found != init.sha256:
        raise UserError(f"{init.source} has SHA-256 {found}, and init expects {init.sha256}: these are other weights")
    return arrays


def _fit_head(config: Config, splits: Splits, variables: Variables) -> Variables:
    """Return variables whose last layer is a linear probe, fitted to the features of the training images."""
    train, logits = splits.train, variables["params"]["logits"]
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    fewest = int(counts.min())
    require(
        fewest > 1,
        f'head="probe": class {train.class_names[counts.argmin()]} has {fewest} training images, expected at least 2; '
        'set head="new"',
    )
    # Features do not depend on the last layer: with zeros they are kept for every seed.
    blank = _replace_head(variables, jax.tree.map(np.zeros_like, logits))
    resizing, files = Resizing(), ()
    if isinstance(train.images, ImageFiles):  # others are not what a decoded file is, and are not kept
        resizing, files = train.images.resizing, splits.files
    network = TrainedModel(config, 0, train.class_names, train.image_shape, blank, resizing=resizing)
    with main_process_first():
        features = compute_split_features(network, Splits(train, None, None, files=files))["train"]
    with show_status("fitting the last layer"):
        kernel, bias = _fit_probe(features, train.labels, len(counts), config.seed, min(FOLDS, fewest))
    head = jax.tree.map(lambda fitted, like: fitted.astype(like.dtype), {"kernel": kernel, "bias": bias}, logits)
    # Rounding may differ between machines, and all processes have to start alike.
    return _replace_head(variables, jax.device_get(broadcast_one_to_all(head)))


def _fit_probe(
    features: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], classes: int, seed: int, folds: int
) -> tuple[Float[np.ndarray, "c classes"], Float[np.ndarray, " classes"]]:
    """Return the kernel and bias of a probe whose penalty is chosen by cross-validation."""
    scale = compute_scale(features)
    train = Labeled(features * scale, labels, classes)
    probe = fit_all(train, cross_validate(train, draw_folds(labels, folds, seed)).penalty)
    return probe.kernels[0] * scale, probe.biases[0]


def _replace_head(variables: Variables, logits: Variables) -> Variables:
    """Return variables with another last layer."""
    return {**variables, "params": {**variables["params"], "logits": logits}}
