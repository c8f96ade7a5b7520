"""The way to the C engine. core.py alone imports ps3c._core; core.py and words.py do not import torch."""
