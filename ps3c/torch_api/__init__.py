"""ps3-torch's classes, and one forward call for vision and text. Nothing here computes: the engine does."""
