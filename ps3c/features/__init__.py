"""The one-call API: loads a checkpoint, encodes images and texts, saves the results."""
