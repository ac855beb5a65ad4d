"""Train the network of a config: `python train.py configs/mnist_cnn.py [overrides]`; see --help."""

from jaxclf.commands.train import main

if __name__ == "__main__":
    raise SystemExit(main())
