"""Ask a trained run in a browser: `python demo.py runs/mnist_cnn`; see --help."""

from jaxclf.commands.demo import main

if __name__ == "__main__":
    raise SystemExit(main())
