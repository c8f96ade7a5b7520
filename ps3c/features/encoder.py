"""Encoder: encodes images and texts to features, in one call each."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, Union

import torch
import torch.nn.functional as F

from .. import _arguments
from .._arguments import Colour, Looks
from ..errors import ImageError
from ..images import ImageSource
from .look_pass import LookPass
from .progress import Progress, Reporter
from .reading import Prepared, Reader, is_one, with_texts
from .results import ImageFeatures, Look, TextFeatures

Images = ImageSource | Iterable[ImageSource]
Texts = str | Sequence[str | None] | None

TEXTS = 64  # texts per batch
# Limits of a batch of images, and of the images read in advance: their number, and the bytes of their pixels or tokens.
MOST = {"cpu": 8, "cuda": 64}
BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}


P = ParamSpec("P")
T = TypeVar("T")


def _arguments_of(
    other: Callable[Concatenate["Encoder", P], Any],
) -> Callable[[Callable[..., T]], Callable[Concatenate["Encoder", P], T]]:
    """Gives a method that passes all its arguments to `other` the signature of `other`. Its return type stays."""

    def decorate(function: Callable[..., T]) -> Callable[Concatenate["Encoder", P], T]:
        own = inspect.signature(function).return_annotation
        function.__signature__ = inspect.signature(other).replace(return_annotation=own)  # type: ignore[attr-defined]
        return function

    return decorate


@dataclass
class _Request:
    """What to compute for each image."""

    looks: Looks
    tokens: Looks
    maps: bool
    normalize: bool
    prompts: dict[str | None, torch.Tensor] = field(default_factory=dict)  # prompts of the last batch's texts

    def __post_init__(self):
        self.looks = _arguments.looks("looks", self.looks)
        self.tokens = _arguments.looks("tokens", self.tokens)
        if self.looks is not None and self.tokens is not None:
            raise ValueError(f"looks, tokens: got {self.looks!r} and {self.tokens!r}, expected one of them")

    @property
    def wants_tokens(self) -> bool:
        return self.looks is not None or self.tokens is not None

    @property
    def selects(self) -> bool:
        """True if the model computes selection probabilities: for looks, or only for maps."""
        return self.wants_tokens or self.maps


class Encoder:
    """A loaded checkpoint; ps3c.load returns it. It can be unpacked into model, processor, tokenizer.

    Several threads may use one encoder. Ctrl-C interrupts a call between two looks.

    Attributes:
        model: PS3Model, or PS3VisionModel if the checkpoint has no text tower. Its num_hidden_layers_to_return is 1.
        processor: PS3ImageProcessor. tokenizer: PS3Tokenizer, or None; then text_error gives the reason. ps3c.load
            leaves it to the first use of either to load the tokenizer.
        folder: the checkpoint folder, also of a model on the hub: its snapshot in the local cache.
        device, dtype: those of the model. scales: image sizes in pixels, ascending.
        logit_scale, logit_bias: float, used by zero_shot; None if the checkpoint does not have them.
    """

    def __init__(
        self,
        model,
        processor,
        tokenizer,
        *,
        folder: Union[str, "os.PathLike[str]"],
        logit_scale: float | None = None,
        logit_bias: float | None = None,
        text_error: str | None = None,
    ):
        self.model = model
        self.processor = processor
        self._tokenizer = tokenizer
        self._loads_tokenizer: Callable[[], tuple[Any, str | None]] | None = None
        self.folder = Path(folder)
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias
        self._text_error = text_error

    @property
    def tokenizer(self) -> Any:
        self._load_tokenizer()
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._loads_tokenizer, self._tokenizer, self._text_error = None, tokenizer, None

    @property
    def text_error(self) -> str | None:
        self._load_tokenizer()
        return self._text_error

    @text_error.setter
    def text_error(self, reason: str | None) -> None:
        self._load_tokenizer()
        self._text_error = reason

    def _load_tokenizer(self) -> None:
        load = self._loads_tokenizer
        if load is not None:  # two threads may both load one; they are equal
            tokenizer, reason = load()
            if self._loads_tokenizer is load:
                self._tokenizer, self._text_error, self._loads_tokenizer = tokenizer, reason, None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.processor, self.tokenizer))

    def __repr__(self) -> str:
        scales = ", ".join(map(str, self.scales))
        return f"<Encoder of {self.folder}: {scales} pixels, {str(self.dtype)[6:]} on {self.device}>"

    @property
    def device(self) -> torch.device:
        return self._vision.prior_prompt.device

    @property
    def dtype(self) -> torch.dtype:
        return self._vision.prior_prompt.dtype

    @property
    def scales(self) -> list[int]:
        return list(self._vision.ps3_scales)

    @property
    def _vision(self):
        return self.model.vision_model

    # ---- images ----------------------------------------------------------------------------------------------------

    def embed_batches(
        self,
        images: Images,
        text: Texts = None,
        looks: Looks = None,
        tokens: Looks = None,
        maps: bool = False,
        *,
        normalize: bool = True,
        batch_size: int | str = "auto",
        progress: Progress = None,
        on_error: str = "raise",
        max_pixels: int | None = None,
        background: Colour = "white",
    ) -> Iterator[ImageFeatures]:
        """Like embed_images, but returns an iterator of batches on the model's device.

        Memory holds one batch at a time. images may be a generator; items are read when they are needed. With
        on_error="skip" the last batch may have errors and no images.
        """
        request = _Request(looks, tokens, bool(maps), bool(normalize))
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error: got {on_error!r}, expected 'raise' or 'skip'")
        if text is not None:
            self._need_text_tower("text")
            if not request.selects:
                raise ValueError(
                    f"text: got {text!r} without looks, tokens or maps, expected one of them; a text selects patches "
                    "and does not change the pooled vector, which encodes the whole image"
                )
        size = self._batch_size(batch_size, request)
        sources, count = with_texts(images, text)
        reader = self._reader(request.selects, max_pixels, background, ahead=count != 1)
        reporter = Reporter(progress, count, "image")
        return self._batches(reader.read(sources), request, size, on_error == "skip", reporter)

    @_arguments_of(embed_batches)
    def embed_images(self, *arguments: Any, **options: Any) -> ImageFeatures:
        """Encodes images to pooled vectors and, with looks or tokens, to the features of the selected patches.

        Args:
            images: one image or several: paths, PIL images, arrays (H, W) or (H, W, 3 or 4) of uint8, uint16 or floats
                from 0 to 1, or the bytes of image files; see ps3c.images.open_image. Each is made an
                upright, opaque RGB image, which is then resized.
            text: selects patches that match it: one text for all images, or a list with a text or None per image.
                None selects salient patches.
            looks: number of looks at high resolution. "all": every patch is encoded. 0: low-res tokens only.
            tokens: number of high-res patches, or "all"; replaces looks. With neither, only pooled vectors.
            maps: also return selection_maps and selection_probs.
            normalize: scale pooled vectors to length 1, so that their dot products are cosine similarities.
            batch_size: images per batch. "auto" chooses by device and memory.
            progress: None shows a progress bar on a terminal if the call takes more than 2 seconds. True and False
                always or never show it. A function is called as function(done, total) after every image or look.
            on_error: if an image cannot be used, "raise" raises its ImageError; "skip" adds the error to `errors`.
            max_pixels: the largest accepted number of pixels of an image. None: Pillow's limit.
            background: the colour behind transparent pixels, such as "white", "#rrggbb" or (r, g, b).

        Returns:
            ImageFeatures on the CPU, in the model's dtype.

        Raises:
            ImageError: an image cannot be used. TypeError, ValueError: another argument is wrong.
        """
        return ImageFeatures.concatenate([batch.to("cpu") for batch in self.embed_batches(*arguments, **options)])

    def looks(
        self,
        image: ImageSource,
        text: str | None = None,
        looks: Looks = "all",
        *,
        tokens: Looks = None,
        progress: Progress = None,
        max_pixels: int | None = None,
        background: Colour = "white",
    ) -> Iterator[Look]:
        """Returns an iterator of the looks at one image. A look is computed when the iterator is advanced to it.

        Look 0 is the whole image at low resolution. Its probability maps decide which patches the other looks encode.

        Args:
            tokens: total number of high-res patches; replaces looks. The other arguments are those of embed_images.
        """
        request = _Request(None if tokens is not None and looks == "all" else looks, tokens, True, False)
        if not request.wants_tokens:
            raise ValueError("looks, tokens: got neither, expected a number or 'all' for one of them")
        if text is not None:
            if not isinstance(text, str):
                raise TypeError(f"text: got {text!r}, expected a string")
            self._need_text_tower("text")
        reporter = Reporter(progress, 1, "look")
        prepared = self._reader(True, max_pixels, background).prepare(image, "image", text)
        return self._looks(prepared, request, reporter)

    def _looks(self, prepared: Prepared, request: _Request, reporter: Reporter) -> Iterator[Look]:
        with reporter:
            look_pass = self._look_pass([prepared], request, reporter, looks_per_step=1)
            for step in look_pass:
                if step.looks:
                    number, rows = step.looks.start + 1, step.rows[0][0]
                else:
                    number, rows = 0, torch.arange(look_pass.low_res_tokens, device=look_pass.tokens.device)
                    maps = [probs[0] for probs in look_pass.probs]
                positions = look_pass.positions[0, rows]
                reporter.step()
                yield Look(
                    number=number,
                    features=look_pass.tokens[0, rows],
                    positions=positions,
                    probs=maps,
                    image=prepared.small,
                    text=prepared.text,
                    taken=torch.bincount(positions[:, 0], minlength=len(look_pass.grids)).tolist(),
                    scales=self.scales,
                    patch_size=self._vision.patch_size,
                )

    def _reader(self, small: bool, max_pixels: int | None, background: Colour, ahead: bool = False) -> Reader:
        if max_pixels is not None:
            max_pixels = _arguments.positive("max_pixels", max_pixels)
        # On the CPU the model uses all cores; threads that read images in advance would slow it down.
        ahead = ahead and self.device.type == "cuda"
        return Reader(
            self.processor,
            self.dtype,
            small=small,
            max_pixels=max_pixels,
            background=_arguments.background(background),
            ahead=self._fit(self._pixel_bytes(), min(8, torch.get_num_threads())) if ahead else 0,
        )

    def _batches(
        self, prepared: Iterator[Prepared | ImageError], request: _Request, size: int, skip: bool, reporter: Reporter
    ) -> Iterator[ImageFeatures]:
        with reporter:
            batch: list[Prepared] = []
            errors: list[ImageError] = []
            for one in prepared:
                if isinstance(one, Prepared):
                    batch.append(one)
                elif skip:
                    errors.append(one)
                    reporter.skip()
                else:
                    raise one
                if len(batch) == size:
                    yield self._encode(batch, errors, request, reporter)
                    batch, errors = [], []
            if batch or errors:
                yield self._encode(batch, errors, request, reporter)

    def _encode(
        self, batch: list[Prepared], errors: list[ImageError], request: _Request, reporter: Reporter
    ) -> ImageFeatures:
        vision = self._vision
        features = ImageFeatures(
            names=[one.name for one in batch],
            sizes=[one.size for one in batch],
            pooled=torch.empty(0, vision.trunk.attn_pool.latent.shape[-1], dtype=self.dtype, device=self.device),
            texts=[one.text for one in batch],
            scales=self.scales,
            patch_size=vision.patch_size,
            errors=errors,
            thumbnails=[one.small for one in batch if one.small is not None],
        )
        if not batch:
            return features
        if request.selects:
            look_pass = self._look_pass(batch, request, reporter)
            for step in look_pass:
                reporter.step(len(step.images) * max(len(step.looks), 1))
            features.pooled, features.grids = look_pass.pooled, look_pass.grids
            if request.wants_tokens:
                features.tokens, features.positions = look_pass.tokens, look_pass.positions
                features.look = look_pass.number
            if request.maps:
                features.selection_maps, features.selection_probs = look_pass.maps, look_pass.probs
        else:
            reporter.expect(1)
            features.pooled = vision.forward_low_res(self._pixels(batch))["x"]
            reporter.step(len(batch))
        if request.normalize:
            features.pooled = F.normalize(features.pooled.float(), dim=-1).to(self.dtype)
        return features

    def _look_pass(
        self, batch: list[Prepared], request: _Request, reporter: Reporter, looks_per_step: int = 0
    ) -> LookPass:
        looks = request.looks if request.wants_tokens else 0
        prompt = self._prompts([one.text for one in batch], request)
        look_pass = LookPass(self._vision, self._pixels(batch), prompt, looks, request.tokens, looks_per_step)
        reporter.expect(look_pass.looks + 1, "look" if look_pass.looks else None)
        return look_pass

    def _pixels(self, batch: list[Prepared]) -> torch.Tensor:
        """Pixels (B, 3, H, W) of a batch. The pixels of the single images are released."""
        pixels = torch.stack([one.pixels for one in batch]) if len(batch) > 1 else batch[0].pixels[None]
        for one in batch:
            one.pixels = torch.empty(0)
        return pixels.to(self.device)

    def _batch_size(self, batch_size: int | str, request: _Request) -> int:
        if batch_size != "auto":
            return _arguments.positive("batch_size", batch_size)
        if not request.wants_tokens:
            return self._fit(self._pixel_bytes(), MOST[self.device.type])
        if self.device.type == "cpu":
            return 1  # one image is enough work for all cores
        vision = self._vision
        tokens = sum((scale // vision.patch_size) ** 2 for scale in self.scales)
        return self._fit(max(self._pixel_bytes(), tokens * vision.width * self.dtype.itemsize), MOST["cuda"])

    def _fit(self, each: int, most: int) -> int:
        """How many items of `each` bytes fit within the memory limit: at least 1, at most `most`."""
        return max(1, min(most, BYTES[self.device.type] // each))

    def _pixel_bytes(self) -> int:
        """Bytes of one image's pixels (an estimate)."""
        size = self.processor.image_size
        sides = list(size) if isinstance(size, (list, tuple)) else [size]
        return 3 * sides[0] * sides[-1] * self.dtype.itemsize

    # ---- texts -----------------------------------------------------------------------------------------------------

    def embed_texts(
        self,
        texts: str | Sequence[str],
        *,
        normalize: bool = True,
        batch_size: int | str = "auto",
        progress: Progress = None,
    ) -> TextFeatures:
        """Encodes texts to vectors, comparable with the pooled vectors of images, and to prompts, which select patches.

        Args:
            texts: one text or several. normalize, batch_size, progress: as in embed_images.

        Returns:
            TextFeatures on the CPU, in the model's dtype.

        Raises:
            TypeError: texts is not a string or a list of strings. ValueError: texts is empty, or the checkpoint has no
                text tower.
        """
        self._need_text_tower("texts")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, (list, tuple)):
            raise TypeError(f"texts: got {type(texts).__name__}, expected a string or a list of strings")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{index}]: got {type(text).__name__}, expected a string")
        if not texts:
            raise ValueError("texts: got an empty list, expected one text or more")
        size = TEXTS if batch_size == "auto" else _arguments.positive("batch_size", batch_size)
        pooled, prompt = [], []
        with Reporter(progress, len(texts), "text") as reporter:
            reporter.expect(1)
            for first in range(0, len(texts), size):
                part = list(texts[first : first + size])
                ids = self.tokenizer(part)
                outputs = self.model.encode_text(ids.to(self.device))
                pooled.append(outputs.pooled_output)
                prompt.append(outputs.prompt)
                reporter.step(len(part))
        vectors = torch.cat(pooled)
        if normalize:
            vectors = F.normalize(vectors.float(), dim=-1).to(self.dtype)
        return TextFeatures(list(texts), vectors.cpu(), torch.cat(prompt).cpu())

    def prompt(self, text: str) -> torch.Tensor:
        """The argument `prompt` of the model's forward for a text: (1, C), on the model's device."""
        if not isinstance(text, str):
            raise TypeError(f"text: got {type(text).__name__}, expected a string")
        return self.embed_texts([text], progress=False).prompt.to(self.device)

    def _prompts(self, texts: list[str | None], request: _Request) -> torch.Tensor | None:
        """Prompts (B, C). An image without a text gets the prior prompt. None if no image has a text."""
        wanted = {text for text in texts if text is not None}
        if not wanted:
            return None
        known = {text: prompt for text, prompt in request.prompts.items() if text in wanted}
        new = sorted(wanted - known.keys())
        if new:
            known.update(zip(new, self.embed_texts(new, progress=False).prompt.to(self.device)))
        request.prompts = known
        return torch.stack([self._vision.prior_prompt.detach() if text is None else known[text] for text in texts])

    def _need_text_tower(self, argument: str) -> None:
        if self.tokenizer is None:
            reason = self.text_error or "has no tokenizer"
            raise ValueError(f"{argument}: got text, which cannot be encoded: {self.folder}: {reason}")

    # ---- both ------------------------------------------------------------------------------------------------------

    def zero_shot(
        self,
        images: Images,
        labels: Sequence[str],
        template: str = "{}",
        *,
        progress: Progress = None,
        max_pixels: int | None = None,
        background: Colour = "white",
    ) -> dict[str, float] | list[dict[str, float]]:
        """The probability that a label matches an image, for each label independently (SigLIP's sigmoid).

        Args:
            labels: texts, without duplicates. template: a sentence in which {} stands for the label, such as
                "a photo of {}".

        Returns:
            {label: probability from 0 to 1}; for a list of images, a list of such dicts.

        Raises:
            ValueError: the checkpoint has no logit_scale and logit_bias, or no text tower. Other errors as in
                embed_images.
        """
        for name in ("logit_scale", "logit_bias"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"zero_shot: {self.folder} has no {name} in its weights, which is needed to compute probabilities; "
                    "use the cosine similarities of embed_images and embed_texts instead"
                )
        if (
            isinstance(labels, str)
            or not isinstance(labels, Sequence)
            or not all(isinstance(one, str) for one in labels)
        ):
            raise TypeError(f"labels: got {labels!r}, expected a list of strings")
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"labels: got {list(labels)}, expected one or more, without duplicates")
        if not isinstance(template, str) or "{}" not in template:
            raise ValueError(f"template: got {template!r}, expected a string that contains {{}} for the label")
        texts = self.embed_texts([template.replace("{}", label) for label in labels], normalize=False, progress=False)
        features = self.embed_images(
            images, normalize=False, progress=progress, max_pixels=max_pixels, background=background
        )
        cosines = F.normalize(features.pooled.float(), dim=-1) @ F.normalize(texts.pooled.float(), dim=-1).T
        logits = cosines * torch.tensor(self.logit_scale).exp() + self.logit_bias
        results = [dict(zip(labels, row)) for row in logits.sigmoid().tolist()]
        return results[0] if is_one(images) else results
