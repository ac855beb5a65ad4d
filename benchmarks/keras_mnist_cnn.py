"""Train the network of `configs/mnist_cnn.py` with Keras 3, on the backend of KERAS_BACKEND.

Data, split, network, optimizer, batch size and steps are those of jaxclf; the network is trained, validated, tested and
saved. Needs keras and a backend, not jaxclf. Prints the test accuracy.
"""

import sys
import tempfile
from pathlib import Path

import bundled_mnist
import numpy as np


def read(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images [n, 28, 28, 1] in [0, 1] and labels [n] of the bundled files."""
    images, labels = bundled_mnist.read(part)
    return images.astype(np.float32) / 255, labels.astype(np.int32)


def main() -> None:
    """Train one epoch and print the test accuracy."""
    try:
        import keras
    except ImportError:
        sys.exit("keras is not installed in this environment")
    keras.utils.set_random_seed(0)
    images, labels = read("train")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(36, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    assert model.count_params() == 242_062
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    held_out = images[:5_000], labels[:5_000]
    model.fit(images[5_000:], labels[5_000:], batch_size=128, epochs=1, validation_data=held_out, verbose=2)
    _, accuracy = model.evaluate(*read("t10k"), batch_size=500, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
    print(f"{keras.backend.backend()}: test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
