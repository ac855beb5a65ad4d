"""Saliency methods, one a file."""
