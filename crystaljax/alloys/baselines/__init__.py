"""What a trained model is compared with: random draws, search, prompted models."""
