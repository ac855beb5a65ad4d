"""Optimizers and learning-rate schedules: frozen dataclasses that build those of optax."""

from jaxclf.optimizers.adam import Adam, AdamW
from jaxclf.optimizers.base import Optimizer
from jaxclf.optimizers.groups import LayeredModel
from jaxclf.optimizers.lamb import Lamb
from jaxclf.optimizers.lion import Lion
from jaxclf.optimizers.muon import Muon
from jaxclf.optimizers.schedules import Constant, OneCycle, Schedule, WarmupCosine, WarmupLinear
from jaxclf.optimizers.sgd import Sgd

__all__ = [
    "Adam",
    "AdamW",
    "Constant",
    "Lamb",
    "LayeredModel",
    "Lion",
    "Muon",
    "OneCycle",
    "Optimizer",
    "Schedule",
    "Sgd",
    "WarmupCosine",
    "WarmupLinear",
]
