"""The API of one call: load a checkpoint, encode images and texts, save what came out."""
