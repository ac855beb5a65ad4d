"""Parts: a benchmark of saliency methods with exact ground truth, the Shapley values of an image's parts."""
