"""Export a trained run: `python export.py runs/mnist_cnn`; see --help."""

from jaxclf.commands.export import main

if __name__ == "__main__":
    raise SystemExit(main())
