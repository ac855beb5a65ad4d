"""Pretrained weights of other libraries for the networks of jaxclf."""
