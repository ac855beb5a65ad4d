"""What the entry points run: parse, build, call the library. `train.py` is `jaxclf.commands.train`, and so on."""
