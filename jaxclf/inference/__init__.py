"""What a trained model is used for: prediction, explanation, export."""
