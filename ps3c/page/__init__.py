"""The web page of `ps3c demo`: an image and a text in, where the model looks out, look by look."""

from .server import build, serve

__all__ = ["build", "serve"]
