"""Predict the classes of pictures in files: `python predict.py runs/mnist_cnn digits/*.png`; see --help."""

from jaxclf.commands.predict import main

if __name__ == "__main__":
    raise SystemExit(main())
