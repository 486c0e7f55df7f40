"""The predictor: one file that goes from images to labels."""
