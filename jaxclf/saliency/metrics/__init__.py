"""Evaluation metrics of saliency maps."""
