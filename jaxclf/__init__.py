"""jaxclf: image classification in JAX and Flax. `jaxclf.load(path)` gives a trained run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxclf.inference.trained_model import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that importing one part does not import them all.
    if name == "load":
        from jaxclf.inference.trained_model import load

        return load
    raise AttributeError(f"module 'jaxclf' has no attribute {name!r}")
