"""Evaluate a run: `python eval.py runs/mnist_cnn`; the same as `jaxclf eval`."""

import sys

from jaxclf.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main(["eval", *sys.argv[1:]]))
