"""jaxclf: image classification in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxclf import saliency
    from jaxclf.api import Run, evaluate, fit, load
    from jaxclf.config import Config
    from jaxclf.training.callbacks import Callback

__version__ = "0.1.0"
__all__ = ["Callback", "Config", "Run", "evaluate", "fit", "load", "saliency"]

_MODULES = {"Config": "jaxclf.config", "Callback": "jaxclf.training.callbacks"} | dict.fromkeys(
    ("Run", "evaluate", "fit", "load"), "jaxclf.api"
)


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line answers help without importing JAX.
    from importlib import import_module

    if name == "saliency":
        return import_module("jaxclf.saliency")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'jaxclf' has no attribute {name!r}")
