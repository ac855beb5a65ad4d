"""Traced programs, convolutions and compiler options."""
