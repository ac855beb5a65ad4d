"""Worker of training.py: train with Keras 3 on a backend. Needs keras and the backend, not jaxclf.

    python benchmarks/training_keras.py FOLDER {tensorflow,jax,torch}

Calls `fit` on uint8 images in memory with the fastest of several settings: arrays or a tf.data pipeline that gathers
whole batches, several steps per call, with or without XLA. Replies as described in training_worker.py.
"""

import importlib
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
from training_worker import Task, Train, Turns, find_fastest, read_task

STEPS_PER_CALL = 16


def build_network(task: Task):
    """Build the network for uint8 images [b, h, w, c]."""
    import keras

    layers = keras.layers
    parts = [keras.Input(task.image_shape, dtype="uint8"), layers.Rescaling(1 / 255)]
    for filters in task.convolutions:
        parts.append(layers.Conv2D(filters, task.kernel_size, padding="same", activation="relu"))
        parts.append(layers.MaxPooling2D())
    parts.append(layers.Flatten())
    for i, width in enumerate((*task.dense, task.classes)):
        if task.dropout:
            parts.append(layers.Dropout(task.dropout))
        parts.append(layers.Dense(width, activation="relu" if i < len(task.dense) else None))
    model = keras.Sequential(parts)
    assert model.count_params() == task.parameters
    return model


def build(task: Task, images: np.ndarray, labels: np.ndarray, source: str, steps_per_call: int, xla: bool) -> Train:
    """Compile the model and return a function that trains a slice."""
    import keras

    model = build_network(task)
    adam, sgd = partial(keras.optimizers.Adam, epsilon=1e-8), keras.optimizers.SGD
    model.compile(
        {"Adam": adam, "Sgd": sgd}[task.optimizer](task.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_call,
        jit_compile=xla,
    )
    if source == "arrays":
        data = {"x": images, "y": labels, "batch_size": task.batch_size}
    else:
        data = {"x": build_pipeline(images, labels, task.batch_size)}
    return lambda: model.fit(**data, epochs=task.epochs, verbose=0).history["loss"][-1]


def build_pipeline(images: np.ndarray, labels: np.ndarray, batch_size: int):
    """Build a pipeline of whole batches, reshuffled every epoch and prefetched."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    images, labels = tf.constant(images), tf.constant(labels)
    indices = tf.data.Dataset.range(len(labels)).shuffle(len(labels)).batch(batch_size, drop_remainder=True)
    gather = indices.map(lambda i: (tf.gather(images, i), tf.gather(labels, i)), num_parallel_calls=tf.data.AUTOTUNE)
    return gather.prefetch(tf.data.AUTOTUNE)


def list_settings(task: Task, backend: str) -> dict[str, tuple[str, int, bool]]:
    """Return the settings by name: source of the data, steps per call, whether to use XLA."""
    if backend == "torch":
        return {"arrays": ("arrays", 1, False)}  # which supports one step per call only
    several = f"{STEPS_PER_CALL} steps per call"
    settings = {
        f"{source}, {several}": (source, STEPS_PER_CALL, backend == "jax")
        for source in ("arrays", "tf.data")
        if source == "arrays" or importlib.util.find_spec("tensorflow")
    }
    if backend == "tensorflow" and not task.convolutions:  # XLA's convolutions are five times slower than oneDNN's
        settings[f"tf.data, {several}, XLA"] = ("tf.data", STEPS_PER_CALL, True)
    return settings


def main() -> None:
    """Train until the end of the requests."""
    turns, backend = Turns(), sys.argv[2]
    os.environ["KERAS_BACKEND"] = backend
    import keras

    task, images, labels = read_task(Path(sys.argv[1]))
    settings = list_settings(task, backend)
    setting, train = find_fastest(
        {name: partial(build, task, images, labels, *value) for name, value in settings.items()}
    )
    version = importlib.import_module(backend).__version__
    while True:
        turns.end(train(), f"keras {keras.__version__}, {backend} {version}, {setting}")


if __name__ == "__main__":
    main()
