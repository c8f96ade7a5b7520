"""The web page of `ps3c demo`: shows where the model looks in an image, for a text, look by look."""

from .server import build, serve

__all__ = ["build", "serve"]
