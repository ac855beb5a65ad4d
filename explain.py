"""Explain a trained run: `python explain.py runs/mnist_cnn`; see --help."""

from jaxclf.commands.explain import main

if __name__ == "__main__":
    raise SystemExit(main())
