"""The generated pages of docs/, made from the program itself: ``python -m docgen``."""
