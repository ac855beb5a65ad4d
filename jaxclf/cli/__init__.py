"""What the entry points run: parse, build, call the library. `train.py` is `jaxclf.cli.train`, and so on."""
