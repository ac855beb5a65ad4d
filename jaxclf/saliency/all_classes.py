"""Every class at once."""

from __future__ import annotations

from dataclasses import dataclass

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import Method, Wrapper
from jaxclf.saliency.query import Query


@dataclass(frozen=True)
class AllClasses(Wrapper):
    """A method asked about the scores of all classes, with one pass forward for each point; see `all_classes`."""

    method: Method

    @property
    def every_class(self) -> bool:
        """It does."""
        return True

    def explain(self, query: Query) -> Attribution:
        """What the method says of each class."""
        return self.method.explain(query.replace(every_class=True, targets=None))


def all_classes(method: Method) -> Method:
    """The same method for the scores of all classes; it is called alike, and its `targets` are left unused.

    Its values are [b, classes, ...]; score, delta and evaluations are [b, classes]. The pass forward is shared.
    """
    require(isinstance(method, Method), f"all_classes({method!r}): expected a saliency method")
    return AllClasses(method)
