"""The rules file: strict, closed, and parsed once into values."""
