"""Run configs with many seeds and settings: `python benchmark.py configs/mnist_*.py --seeds 5`; see --help."""

from jaxclf.commands.benchmark import main

if __name__ == "__main__":
    raise SystemExit(main())
