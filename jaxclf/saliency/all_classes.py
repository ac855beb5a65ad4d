"""A wrapper that explains all classes at once."""

from __future__ import annotations

from dataclasses import dataclass

from jaxclf.errors import require
from jaxclf.saliency.base import Method, Wrapper
from jaxclf.saliency.query import Attribution, Query


@dataclass(frozen=True)
class AllClasses(Wrapper):
    """A method applied to the scores of all classes; see `all_classes`."""

    method: Method

    @property
    def every_class(self) -> bool:
        """True."""
        return True

    def explain(self, query: Query) -> Attribution:
        """Return the attributions of the method for each class, which share the forward passes."""
        return self.method.explain(query.replace(every_class=True, targets=None))


def all_classes(method: Method) -> Method:
    """Return a method that explains the scores of all classes, with one forward pass per point for all of them.

    Args:
        method: A saliency method.

    Returns:
        A method that is called in the same way and ignores `targets`. Its values are [b, classes, ...]; score, delta
        and evaluations are [b, classes].

    Raises:
        UserError: If the argument is not a saliency method.
    """
    require(isinstance(method, Method), f"all_classes({method!r}): expected a saliency method")
    return AllClasses(method)
