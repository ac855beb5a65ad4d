"""Commands in processes of their own, forked from one that has imported their libraries: each begins seconds sooner.

Run as a script, this is that process. No device and no TensorFlow runs in it; a command that is forked from it reads
its own options, environment and files, starts its own devices, and ends as Python ends.
"""

import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

IMPORTED = (
    "matplotlib.figure",
    "orbax.checkpoint.experimental.v1",
    "tensorboardX",
    *(f"jaxclf.cli.{name}" for name in ("eval", "explain", "predict", "train")),
)
READ_WHEN_IMPORTED = ("JAX_", "PYTHON")  # variables of the environment


class Forker:
    """The process that commands are forked from, inside the block."""

    def __init__(self, env):
        self.env = env
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            words = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(words, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._requests.close()
        self._process.wait()

    def can(self, words, env):
        """Whether a fresh process would do the same with what stands behind `python` on a command line."""
        before, asked = (
            {name: value for name, value in variables.items() if name.startswith(READ_WHEN_IMPORTED)}
            for variables in (self.env, env)
        )
        return before == asked and (words[0] in ("-u", "-m") or not words[0].startswith("-"))

    def start(self, words, cwd, env):
        """Start a command."""
        outputs = [os.pipe() for _ in range(3)]
        theirs = [writing for _, writing in outputs]
        socket.send_fds(self._requests, [json.dumps([words, cwd, env]).encode()], theirs)
        for writing in theirs:
            os.close(writing)
        return Forked(*(os.fdopen(reading, encoding="utf-8") for reading, _ in outputs))


class Forked:
    """A forked command, with what tests need of `subprocess.Popen`."""

    def __init__(self, stdout, stderr, status):
        self.stdout, self.stderr, self._status = stdout, stderr, status
        self.pid, self.returncode = int(status.readline()), None
        self._reading = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait()
        for file in (self.stdout, self.stderr, self._status):
            file.close()

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = int(self._status.readline())
        return self.returncode

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout=None):
        """What is printed until the end. Of a call that takes too long nothing is lost to the next one."""
        if self._reading is None:
            pool = ThreadPoolExecutor(2)
            self._reading = [pool.submit(file.read) for file in (self.stdout, self.stderr)]
            pool.shutdown(wait=False)
        try:
            printed = [reading.result(timeout) for reading in self._reading]
        except TimeoutError:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout) from None
        self.wait()
        return printed

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def import_libraries():
    for name in IMPORTED:
        import_module(name)
    import_module("jaxclf.training.pipeline").import_tensorflow()
    page = import_module("jaxclf.reporting.report.page")
    for template in Path(page.__file__).with_name("templates").iterdir():
        page.get_environment().get_template(template.name)  # which keeps it, as Python keeps a module
    gc.freeze()  # commands need not look through it for garbage, which would copy it


def serve(requests):
    """Fork for each request, and return in the process that is to do it, with the words of its command."""
    before = set(os.environ)
    import_libraries()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those ended that wait for commands
    while True:
        message, files, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    command = os.fork()
    if command:
        report(command, *files)
    words, cwd, env = json.loads(message)
    os.chdir(cwd)
    for name in before - set(env):
        del os.environ[name]
    os.environ.update(env)
    for number, file in enumerate(files[:2], start=1):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    return words


def report(command, stdout, stderr, status):
    """Say which process a command is and, in the end, how it has ended."""
    os.close(stdout)
    os.close(stderr)
    os.write(status, f"{command}\n".encode())
    _, ended = os.waitpid(command, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def run(words):
    """What Python does with the words behind `python`."""
    unbuffered, *words = words if words[0] == "-u" else ("", *words)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), "utf-8", write_through=bool(unbuffered))
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), "utf-8", "backslashreplace", line_buffering=True)
    what, *words = words
    if what == "-m":
        sys.path[0], sys.argv = str(Path.cwd()), words
        sys.modules.pop(words[0], None)  # it would be warned about
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(what).absolute().parent), [what, *words]
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    run(serve(socket.socket(fileno=int(sys.argv[1]))))
