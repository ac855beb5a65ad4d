"""Saliency methods, one family per file, and the rewriting of models that some of them need."""
