"""Function names: the first word is a verb of `verbs.txt`, or the whole name is a noun of `nouns.txt`.

Properties, dunder methods, functions inside functions and methods that a protocol of a library names are exempt.
`python tests/support/names.py jaxclf/saliency` lists the names that break the rule.
"""

import ast
import sys
from pathlib import Path

HERE = Path(__file__).parent
VERBS, NOUNS = (set((HERE / f"{name}.txt").read_text().split()) for name in ("verbs", "nouns"))
EXEMPT = {"property", "cached_property", "setup", "compact"}


def is_exempt(function):
    """Whether a function is a property or a dunder method."""
    decorators = {getattr(node, "id", getattr(node, "attr", None)) for node in function.decorator_list}
    return bool(decorators & EXEMPT) or function.name.startswith("__")


def find_functions(tree):
    """Functions of a module and methods of its classes; functions inside functions are not looked at."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from find_functions(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def find_misnamed(path):
    """Yield `line: name` of each function whose name is neither a verb phrase nor a listed noun."""
    for function in find_functions(ast.parse(path.read_text(encoding="utf-8"))):
        name = function.name.lstrip("_")
        if not is_exempt(function) and name not in NOUNS and name.split("_")[0] not in VERBS:
            yield f"{path}:{function.lineno}: {function.name}"


if __name__ == "__main__":
    for root in map(Path, sys.argv[1:]):
        for file in [root] if root.is_file() else sorted(root.rglob("*.py")):
            print(*find_misnamed(file), sep="\n", end="\n" if list(find_misnamed(file)) else "")
