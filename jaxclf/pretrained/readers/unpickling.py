"""Restricted interpreter for pickles of state dicts: names outside an allow-list are errors."""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxclf.errors import UserError, require

# Bounds on what a small file can make of itself. The largest state dicts have a tenth of each.
BYTES = 2**26
INSTRUCTIONS = 1_000_000
INTEGER_BITS = 80  # the magic number of the legacy format has 77
DAMAGED = "its pickle is damaged, or larger than 64 MiB; download the file again"
ALLOWED = (
    "is not allowed: a weight file may hold only tensors, numbers, strings, lists, tuples and dicts\n"
    "where you trust the file, load it with PyTorch and save torch.save(model.state_dict(), path)"
)


@dataclass(frozen=True)
class Function:
    """Stand-in for a function that a pickle calls: what is computed from the arguments instead."""

    compute: Callable[[tuple[object, ...]], object]


def read_pickle(
    content: memoryview, find_global: Callable[[str], object], find_persistent: Callable[[object], object]
) -> tuple[object, int]:
    """Return the value of a pickle, and the number of bytes of the pickle.

    Args:
        content: Bytes that start with the pickle.
        find_global: Returns the stand-in for a dotted name: a `Function` if the pickle may call it.
        find_persistent: Returns the object with a persistent identifier, which PyTorch gives to storages.

    Raises:
        UserError: If the pickle is damaged, exceeds a bound, or does anything but build plain values.
    """
    machine = _Machine(find_global, find_persistent)
    for count, (opcode, argument, position) in enumerate(_parse(bytes(content[:BYTES]))):
        require(count < INSTRUCTIONS, f"its pickle has more than {INSTRUCTIONS} instructions; no state dict has")
        try:
            if opcode == "STOP":
                return machine.stack.pop(), position + 1
            require(opcode in METHODS, f"the pickle instruction {opcode} {ALLOWED}")
            METHODS[opcode](machine, argument)
        except (IndexError, KeyError, ValueError) as error:  # an empty stack, no such memo, too few arguments
            raise UserError(f"{DAMAGED} ({opcode} at byte {position})") from error
    raise UserError(DAMAGED)


def _parse(content: bytes) -> Iterator[tuple[str, object, int]]:
    """Yield the name, the argument and the position of each instruction."""
    try:
        for opcode, argument, position in pickletools.genops(content):
            yield opcode.name, argument, position or 0
    except Exception as error:  # pickletools raises errors of many types, and warns of some escapes
        raise UserError(DAMAGED) from error


def set_item(target: dict[object, object], key: object, value: object) -> None:
    """Set an item of a dict, whose keys are strings and small integers.

    Raises:
        UserError: If the key is anything else.
    """
    # Hashing a deep tuple overflows the stack, and integers without a bound can all have the same hash.
    if not isinstance(key, str) and not (isinstance(key, int) and key.bit_length() < 64):
        raise UserError(f"a dict key of type {type(key).__name__} {ALLOWED}")
    target[key] = value


class _Machine:
    """The stack, its marks and the memo; a method for each group of instructions."""

    def __init__(self, find_global: Callable[[str], object], find_persistent: Callable[[object], object]):
        self.find_global, self.find_persistent = find_global, find_persistent
        self.stack: list[object] = []
        self.marks: list[int] = []  # sizes of the stack
        self.memo: dict[object, object] = {}

    def skip(self, _: object) -> None:
        pass

    def push(self, value: object) -> None:
        too_long = isinstance(value, int) and value.bit_length() > INTEGER_BITS
        require(not too_long, f"its pickle has an integer of more than {INTEGER_BITS} bits")
        self.stack.append(value)

    def put_mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def take_marked(self) -> list[object]:
        """Return the items since the last mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def take(self, count: int) -> list[object]:
        """Return the last items."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def append(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise UserError(f"appending to {type(target).__name__} {ALLOWED}")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise UserError(f"setting items of {type(target).__name__} {ALLOWED}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(target, key, value)

    def make_dict(self, _: object) -> None:
        items = self.take_marked()
        self.stack.append({})
        self.set_items(items)

    def store(self, index: object) -> None:
        # Text has integers of any length; those of the same hash would make the dict slow.
        if not isinstance(index, int) or not 0 <= index < 2**32:
            raise UserError(DAMAGED)
        self.memo[index] = self.stack[-1]

    def fetch(self, index: object) -> None:
        self.stack.append(self.memo[index])

    def load_global(self, name: str) -> None:
        self.stack.append(self.find_global(name))

    def load_stack_global(self, _: object) -> None:
        module, name = self.take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise UserError(DAMAGED)
        self.load_global(f"{module}.{name}")

    def load_persistent(self, _: object) -> None:
        self.stack.append(self.find_persistent(self.stack.pop()))

    def call(self, _: object) -> None:
        function, arguments = self.take(2)
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise UserError(f"calling {type(function).__name__} {ALLOWED}")
        self.stack.append(function.compute(arguments))

    def build(self, _: object) -> None:
        target, _state = self.take(2)
        # The state of a state dict is its `_metadata`: versions of layers, which are not needed.
        if not isinstance(target, OrderedDict):
            raise UserError(f"setting attributes of {type(target).__name__} {ALLOWED}")
        self.stack.append(target)


VALUES = (  # instructions that push their argument
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
)  # fmt: skip
METHODS: dict[str, Callable[[_Machine, object], None]] = {
    **dict.fromkeys(VALUES, _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.skip),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "MARK": _Machine.put_mark,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.take_marked())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.take(3))),
    "LIST": lambda machine, _: machine.stack.append(machine.take_marked()),
    "DICT": _Machine.make_dict,
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.take_marked()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.take_marked()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.store),
    "MEMOIZE": lambda machine, _: machine.store(len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.fetch),
    "GLOBAL": lambda machine, name: machine.load_global(str(name).replace(" ", ".", 1)),
    "STACK_GLOBAL": _Machine.load_stack_global,
    "BINPERSID": _Machine.load_persistent,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
