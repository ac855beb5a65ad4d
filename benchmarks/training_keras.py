"""Keras 3's side of training.py, on the backend that is named. It needs keras and the backend, not jaxclf.

    python benchmarks/training_keras.py FOLDER {tensorflow,jax,torch}

`fit` on uint8 images in memory, with the best of the settings that are worth a try on the backend: arrays or a
tf.data pipeline that gathers whole batches, several steps a call, XLA or not. It answers as training_worker.py says.
"""

import importlib
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
from training_worker import Task, Train, Turns, fastest, read_task

STEPS_PER_CALL = 16


def network(task: Task):
    """The network for uint8 images [b, h, w, c]."""
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
    """What trains a slice."""
    import keras

    model = network(task)
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
        data = {"x": pipeline(images, labels, task.batch_size)}
    return lambda: model.fit(**data, epochs=task.epochs, verbose=0).history["loss"][-1]


def pipeline(images: np.ndarray, labels: np.ndarray, batch_size: int):
    """Whole batches, shuffled anew every epoch, made ahead of their use."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    images, labels = tf.constant(images), tf.constant(labels)
    indices = tf.data.Dataset.range(len(labels)).shuffle(len(labels)).batch(batch_size, drop_remainder=True)
    gather = indices.map(lambda i: (tf.gather(images, i), tf.gather(labels, i)), num_parallel_calls=tf.data.AUTOTUNE)
    return gather.prefetch(tf.data.AUTOTUNE)


def settings_of(task: Task, backend: str) -> dict[str, tuple[str, int, bool]]:
    """Source of the data, steps a call, XLA or not, by what is printed."""
    if backend == "torch":
        return {"arrays": ("arrays", 1, False)}  # it takes one step a call
    several = f"{STEPS_PER_CALL} steps a call"
    settings = {
        f"{source}, {several}": (source, STEPS_PER_CALL, backend == "jax")
        for source in ("arrays", "tf.data")
        if source == "arrays" or importlib.util.find_spec("tensorflow")
    }
    if backend == "tensorflow" and not task.convolutions:  # XLA's convolutions were five times slower than oneDNN's
        settings[f"tf.data, {several}, XLA"] = ("tf.data", STEPS_PER_CALL, True)
    return settings


def main() -> None:
    """Train until no more is asked for."""
    turns, backend = Turns(), sys.argv[2]
    os.environ["KERAS_BACKEND"] = backend
    import keras

    task, images, labels = read_task(Path(sys.argv[1]))
    settings = settings_of(task, backend)
    setting, train = fastest({name: partial(build, task, images, labels, *value) for name, value in settings.items()})
    version = importlib.import_module(backend).__version__
    while True:
        turns.end(train(), f"keras {keras.__version__}, {backend} {version}, {setting}")


if __name__ == "__main__":
    main()
