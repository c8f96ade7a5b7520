"""Opens and preprocesses images in order. For a GPU, threads prepare the next images in advance."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .._background import to_rgb
from ..errors import ImageError
from ..images import is_image_source, open_upright, thumbnail
from .memory import Trimmer


@dataclass
class Prepared:
    """A preprocessed image.

    size: (width, height) of the upright image in pixels. pixels: (3, H, W). small: a thumbnail or None.
    """

    name: str
    size: tuple[int, int]
    text: str | None
    pixels: torch.Tensor
    small: Image.Image | None


class Reader:
    """Creates Prepared images.

    Args:
        processor: the model's image processor. dtype: dtype of the pixels. small: keep a thumbnail of each image.
        max_pixels: as in open_image. background: (r, g, b). ahead: number of threads that prepare images while the
            model computes; 0: none.
    """

    def __init__(
        self,
        processor,
        dtype: torch.dtype,
        *,
        small: bool,
        max_pixels: int | None,
        background: tuple[int, int, int],
        ahead: int = 0,
    ):
        self._processor = processor
        self._dtype = dtype
        self._small = small
        self._max_pixels = max_pixels
        self._background = background
        self._ahead = ahead
        self._trim = Trimmer()

    def prepare(self, source: Any, name: str, text: str | None) -> Prepared:
        """Opens and preprocesses one image. `name` is used for a source without a name. Raises as open_image."""
        # Flattened before it is resized: two files that look alike give one vector.
        image, own_name = open_upright(source, max_pixels=self._max_pixels, background=self._background, name=name)
        try:
            pixels = self._processor(image)["pixel_values"][0].to(self._dtype)
            small = thumbnail(image if image.mode == "RGB" else to_rgb(image)) if self._small else None
        except ImageError as error:
            raise ImageError(own_name, error.reason) from error
        return Prepared(own_name, image.size, text, pixels, small)

    def read(self, sources: Iterable[tuple[Any, str | None]]) -> Iterator[Prepared | ImageError]:
        """Yields, for each (source, text) in order, the Prepared image or the ImageError."""

        def one(numbered) -> Prepared | ImageError:
            number, (source, text) = numbered
            self._trim()
            try:
                return self.prepare(source, f"image {number}", text)
            except ImageError as error:
                return error

        return _ahead(one, enumerate(sources), self._ahead) if self._ahead else map(one, enumerate(sources))


def _ahead(function: Callable[[Any], Any], items: Iterator[Any], count: int) -> Iterator[Any]:
    """Like map(function, items), but threads compute the next `count` results while the caller uses the current one."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="ps3c-images")
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the caller stops early
        pool.shutdown(wait=True, cancel_futures=True)


def is_one(images: Any) -> bool:
    """True if `images` is one image and not several."""
    return is_image_source(images)


def with_texts(images: Any, text: Any) -> tuple[Iterator[tuple[Any, str | None]], int | None]:
    """Returns pairs of an image and its text, and their number (None if images is a generator).

    Raises:
        TypeError: images or texts have a wrong type. ValueError: the list is empty, or the number of texts is not 1
            and not the number of images.
    """
    if is_one(images):
        images = [images]
    if not isinstance(images, Iterable):
        raise TypeError(f"images: got {type(images).__name__}, expected paths, PIL images or NumPy arrays, or bytes")
    count = len(images) if isinstance(images, Sized) else None
    if count == 0:
        raise ValueError("images: got an empty list, expected one image or more")
    if text is None or isinstance(text, str):
        return ((image, text) for image in images), count
    if not isinstance(text, (list, tuple)) or not all(one is None or isinstance(one, str) for one in text):
        raise TypeError(f"text: got {text!r}, expected a string, or a string or None for each image")
    if count is not None and len(text) != count:
        raise ValueError(f"text: got {len(text)} texts, expected one for all images, or one for each of {count}")
    return _pairs(images, text), count


def _pairs(images: Iterable[Any], texts: Iterable[str | None]) -> Iterator[tuple[Any, str | None]]:
    remaining = iter(texts)
    for number, image in enumerate(images):
        try:
            text = next(remaining)
        except StopIteration:
            raise ValueError(f"text: got {number} texts, expected one for each image") from None
        yield image, text
