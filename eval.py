"""Evaluate a trained run: `python eval.py runs/mnist_cnn`; see --help."""

from jaxclf.commands.eval import main

if __name__ == "__main__":
    raise SystemExit(main())
