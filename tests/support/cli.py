"""Commands in the process of the tests."""

from functools import partial

from jaxclf.cli.app import main


def run_command(name, arguments=()):
    """Run a command of jaxclf; returns its exit code."""
    return main([name, *map(str, arguments)])


train, evaluate, explain, predict, export, demo, benchmark, report, look = (
    partial(run_command, name)
    for name in ("train", "eval", "explain", "predict", "export", "demo", "benchmark", "report", "data")
)


def lines(done):
    """What a mistake prints; never a traceback."""
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()
