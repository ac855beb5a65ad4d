"""The writers that a command line names."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxclf.errors import UserError
from jaxclf.training.writers import WRITERS, Writer


def build_writers(names: Sequence[str], imports: Sequence[str]) -> list[Writer]:
    """Build writers by the lower-case names of their classes.

    Args:
        names: Such as "tensorboard".
        imports: Imported modules whose writers are known too.

    Raises:
        UserError: For a name that no writer has.
    """
    own = (value for module in imports for value in vars(sys.modules[module]).values())
    classes = [*WRITERS, *(value for value in own if isinstance(value, type) and issubclass(value, Writer))]
    known = {cls.__name__.lower(): cls for cls in classes if cls is not Writer}
    for name in names:
        if name not in known:
            raise UserError(f"--writers {name}: expected some of {', '.join(known)}")
    return [known[name]() for name in names]
