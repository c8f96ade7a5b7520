"""Encoder: images and texts to features."""

import torch

import ps3c


def test_one_call(tiny_checkpoint, image_files):
    encoder = ps3c.load(tiny_checkpoint, device="cpu")
    model, processor, tokenizer = encoder
    assert isinstance(model, ps3c.PS3Model) and isinstance(processor, ps3c.PS3ImageProcessor)
    assert isinstance(tokenizer, ps3c.PS3Tokenizer)
    assert encoder.dtype == torch.bfloat16 and encoder.scales == [64, 128, 256]
    assert encoder.embed_images(image_files).pooled.shape == (3, 64)
