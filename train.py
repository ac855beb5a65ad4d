"""Train the network of a config: `python train.py configs/mnist_cnn.py`; the same as `jaxclf train`."""

import sys

from jaxclf.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
