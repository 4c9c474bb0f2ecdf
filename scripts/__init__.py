"""What is run on the sources: `python -m scripts.reference`."""
