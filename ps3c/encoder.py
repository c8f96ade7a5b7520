"""Encoder: images and texts to features, in one call each."""

from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from PIL import Image

from . import images as _images
from ._arguments import Looks
from ._progress import Progress, Reporter
from ._vision_call import VisionCall
from .errors import ImageError
from .results import ImageFeatures, Look, TextFeatures


class Encoder:
    """A checkpoint, ready to use; made by ps3c.load. Unpacks into model, processor, tokenizer.

    Attributes:
        model: PS3Model, or PS3VisionModel for a checkpoint without a text tower. processor. tokenizer: or None.
        folder: of the checkpoint. device, dtype: the model's. scales: image sizes in pixels, ascending.
        logit_scale, logit_bias: the checkpoint's, or None.
    """

    def __init__(self, model, processor, tokenizer, *, folder, logit_scale=None, logit_bias=None):
        self.model = model
        self.processor = processor
        self.tokenizer = tokenizer
        self.folder = Path(folder)
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.processor, self.tokenizer))

    @property
    def device(self) -> torch.device:
        return self._vision.prior_prompt.device

    @property
    def dtype(self) -> torch.dtype:
        return self._vision.prior_prompt.dtype

    @property
    def scales(self) -> List[int]:
        return list(self._vision.ps3_scales)

    @property
    def _vision(self):
        return self.model.vision_model

    # ---- images ----------------------------------------------------------------------------------------------------

    def embed_images(self, images, text=None, looks: Looks = None, tokens: Looks = None, maps: bool = False, *,
                     normalize: bool = True, batch_size="auto", progress: Progress = None, on_error: str = "raise",
                     max_pixels: Optional[int] = None) -> ImageFeatures:
        """Encodes images: pooled vectors, and with looks or tokens the features of every patch that was looked at."""
        batches = list(self.embed_batches(images, text, looks, tokens, maps, normalize=normalize, batch_size=batch_size,
                                          progress=progress, on_error=on_error, max_pixels=max_pixels))
        return _gather(batches)

    def embed_batches(self, images, text=None, looks: Looks = None, tokens: Looks = None, maps: bool = False, *,
                      normalize: bool = True, batch_size="auto", progress: Progress = None, on_error: str = "raise",
                      max_pixels: Optional[int] = None) -> Iterator[ImageFeatures]:
        """As embed_images, batch by batch."""
        sources = _as_list(images)
        texts = [text] * len(sources) if text is None or isinstance(text, str) else list(text)
        size = 4 if batch_size == "auto" else batch_size
        with Reporter(progress, len(sources), "image") as reporter:
            for first in range(0, len(sources), size):
                opened, errors = [], []
                for index in range(first, min(first + size, len(sources))):
                    try:
                        image, name = _images.open_image(sources[index], max_pixels=max_pixels)
                        opened.append((image, name or f"image {index}", texts[index]))
                    except ImageError as error:
                        if on_error == "raise":
                            raise
                        errors.append(error)
                yield self._embed(opened, errors, looks, tokens, maps, normalize)
                reporter.step(len(opened) + len(errors))

    def _embed(self, opened, errors, looks, tokens, maps, normalize) -> ImageFeatures:
        vision = self._vision
        if not opened:
            empty = torch.empty(0, vision.width, dtype=self.dtype)
            return ImageFeatures([], [], empty, scales=self.scales, patch_size=vision.patch_size, errors=errors)
        pixels = torch.stack([self.processor(image)["pixel_values"][0] for image, _, _ in opened])
        pixels = pixels.to(self.device, self.dtype)
        texts = [text for _, _, text in opened]
        pooled = vision.forward_low_res(pixels)["x"]
        result = ImageFeatures(
            names=[name for _, name, _ in opened],
            sizes=[image.size for image, _, _ in opened],
            pooled=F.normalize(pooled, dim=-1) if normalize else pooled,
            texts=texts,
            scales=self.scales,
            patch_size=vision.patch_size,
            errors=errors,
        )
        if looks is None and tokens is None and not maps:
            return result
        if looks is None and tokens is None:
            looks = 0
        prompt = None if texts[0] is None else torch.cat([self.prompt(text) for text in texts])
        plan, outputs = self._features(pixels, prompt, looks, tokens)
        result.thumbnails = [_images.thumbnail(image) for image, _, _ in opened]
        result.selection_probs = outputs["selection_probs"]
        result.selection_maps = outputs.get("selection_maps") or [torch.zeros_like(p) for p in result.selection_probs]
        result.tokens = outputs["hidden_states"][-1]
        result.positions = _positions(plan.grids[0], result.selection_maps)
        look = torch.zeros(result.positions.shape[:2], dtype=torch.int16, device=pixels.device)
        seen = None
        for number in range(1, plan.looks + 1):
            if number == plan.looks:
                taken = result.selection_maps
            else:
                taken = self._features(pixels, prompt, number, None)[1]["selection_maps"]
            new = [now if seen is None else now - before for now, before in zip(taken, seen or taken)]
            seen = taken
            at = torch.cat([torch.zeros(len(opened), plan.low_res_tokens, device=pixels.device)] + [
                part[whole > 0].reshape(len(opened), -1) for part, whole in zip(new, result.selection_maps)], dim=1)
            look[at > 0] = number
        result.look = look
        if not maps:
            result.selection_maps = result.selection_probs = None
        return result

    def _features(self, pixels, prompt, looks, tokens):
        call = VisionCall(self._vision, pixels, prompt)
        plan = call.plan(mode="features", num_look_close=looks, num_token_look_close=tokens, first_n_scales=None,
                         prompt=prompt is not None, gt_maps=False, smooth=False, hidden_states=1)
        return plan, call.run(plan, maps=plan.selection_maps, probs=("selection_probs",))

    def looks(self, image, text: Optional[str] = None, looks: Looks = "all", *, tokens: Looks = None,
              progress: Progress = None) -> Iterator[Look]:
        """Looks at one image, one after the other; look 0 is the low resolution."""
        opened, _ = _images.open_image(image)
        result = self.embed_images([opened], text, looks if tokens is None else None, tokens, maps=True,
                                   progress=progress)
        for number in range(int(result.look.max()) + 1):
            here = result.look[0] == number
            positions = result.positions[0][here]
            yield Look(
                number, result.tokens[0][here], positions, [probs[0] for probs in result.selection_probs],
                result.thumbnails[0], text, torch.bincount(positions[:, 0], minlength=len(self.scales)).tolist(),
                self.scales, self._vision.patch_size,
            )  # fmt: skip

    # ---- texts -----------------------------------------------------------------------------------------------------

    def embed_texts(self, texts, *, normalize: bool = True, batch_size="auto", progress: Progress = None) -> TextFeatures:
        """Encodes texts."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self.tokenizer is None:
            raise ValueError(f"texts: the checkpoint {self.folder} has no text tower")
        size = 64 if batch_size == "auto" else batch_size
        pooled, prompt = [], []
        with Reporter(progress, len(texts), "text") as reporter:
            for first in range(0, len(texts), size):
                part = texts[first : first + size]
                out = self.model.encode_text(self.tokenizer(part).to(self.device))
                pooled.append(F.normalize(out.pooled_output, dim=-1) if normalize else out.pooled_output)
                prompt.append(out.prompt)
                reporter.step(len(part))
        return TextFeatures(texts, torch.cat(pooled).cpu(), torch.cat(prompt).cpu())

    def prompt(self, text: str) -> torch.Tensor:
        """What looks(text) looks for: (1, C)."""
        return self.embed_texts([text], progress=False).prompt.to(self.device)

    def zero_shot(self, images, labels: Sequence[str], template: str = "{}"):
        """How well each label fits each image: {label: probability}, one dict an image."""
        if self.logit_scale is None or self.logit_bias is None:
            raise ValueError(f"zero_shot: the checkpoint {self.folder} has no logit_scale and logit_bias")
        features = self.embed_images(images)
        texts = self.embed_texts([template.format(label) for label in labels])
        scale = torch.tensor(self.logit_scale).exp()
        logits = features.pooled.float() @ texts.pooled.float().T * scale + self.logit_bias
        results = [dict(zip(labels, row)) for row in logits.sigmoid().tolist()]
        return results if isinstance(images, (list, tuple)) else results[0]


def _as_list(images) -> List[Any]:
    return list(images) if isinstance(images, (list, tuple)) else [images]


def _positions(low: Tuple[int, int], maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """(scale, row, column) of every token (N, T, 3) int32, from which patches were taken."""
    batch, device = maps[0].shape[0], maps[0].device
    parts = [_grid(0, torch.ones(1, *low, device=device)).expand(batch, -1, -1)]
    for scale, taken in enumerate(maps, 1):
        parts.append(_grid(scale, taken).reshape(batch, -1, 3))
    return torch.cat(parts, dim=1).to(torch.int32)


def _grid(scale: int, taken: torch.Tensor) -> torch.Tensor:
    places = taken.nonzero()
    return torch.cat([torch.full_like(places[:, :1], scale), places[:, 1:]], dim=1)[None]


def _gather(batches: List[ImageFeatures]) -> ImageFeatures:
    if len(batches) == 1:
        return batches[0]
    full = [batch for batch in batches if len(batch)] or batches[:1]

    def cat(name):
        values = [getattr(batch, name) for batch in full]
        return None if values[0] is None else torch.cat([value.cpu() for value in values])

    def cat_all(name):
        values = [getattr(batch, name) for batch in full]
        return None if values[0] is None else [torch.cat([v.cpu() for v in scale]) for scale in zip(*values)]

    def add(name):
        return [item for batch in batches for item in getattr(batch, name)]

    return ImageFeatures(
        add("names"), add("sizes"), cat("pooled"), cat("tokens"), cat("positions"), cat("look"),
        cat_all("selection_maps"), cat_all("selection_probs"), add("texts"), full[0].scales, full[0].patch_size,
        add("errors"), add("thumbnails"),
    )  # fmt: skip
