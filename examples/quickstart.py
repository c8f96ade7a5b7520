"""Runs the calls of ps3-torch's quick start with ps3c, on the CPU, from a checkpoint folder.

    python examples/quickstart.py FOLDER [--image FILE] [--output FOLDER] [--dtype float32]

It shows bottom-up selection by number of looks and by number of patches, top-down selection by a text, feature maps.
It writes pictures of the selection probabilities over the image. It needs matplotlib for the pictures; without --image
it uses a photograph from matplotlib's sample data.
"""

import argparse
import time
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from ps3 import PS3ImageProcessor, PS3TextModel, PS3Tokenizer, PS3VisionModel

import ps3c

PHOTOGRAPH = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")


class Timed:
    """Prints how long a `with` block took."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self):
        self.begin = time.perf_counter()

    def __exit__(self, *_):
        print(f"{self.what}: {time.perf_counter() - self.begin:.1f} s", flush=True)


def save_heat_map(outs, image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    ps3c.plot.overlay(image, outs).save(file, dpi=120)
    print(f"  heat map: {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a checkpoint folder")
    parser.add_argument("--image", type=Path, default=PHOTOGRAPH)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--text", default="The medals on her uniform and the flag behind her.")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)

    with Timed("vision model loaded"):
        vision_model = PS3VisionModel.from_pretrained(arguments.folder, dtype=dtype)
        processor = PS3ImageProcessor.from_pretrained(arguments.folder)
        vision_model.eval()
    image = Image.open(arguments.image)
    x = processor(image)["pixel_values"][0].unsqueeze(0).to(dtype)
    print(
        f"image {image.size[0]} x {image.size[1]}, pixel_values {tuple(x.shape)}, {torch.get_num_threads()} threads, "
        f"{arguments.dtype}"
    )

    print("\nbottom-up: two looks at salient patches")
    with Timed("  num_look_close=2"):
        outs = vision_model(x, num_look_close=2)
    print("  features", tuple(outs.last_hidden_state.shape))
    print("  probabilities", [tuple(p.shape) for p in outs.selection_probs])
    save_heat_map(outs, image, arguments.output / "bottom_up.png")

    print("\nbottom-up: 3000 patches")
    with Timed("  num_token_look_close=3000"):
        outs = vision_model(x, num_token_look_close=3000)
    print("  features", tuple(outs.last_hidden_state.shape))

    print(f"\ntop-down: {arguments.text!r}")
    with Timed("  text model loaded"):
        tokenizer = PS3Tokenizer.from_pretrained(arguments.folder)
        text_model = PS3TextModel.from_pretrained(arguments.folder, dtype=dtype)
        text_model.eval()
    with Timed("  text"):
        prompt = text_model(tokenizer([arguments.text])).prompt
    print("  prompt", tuple(prompt.shape))
    with Timed("  num_look_close=2, prompt=prompt"):
        outs = vision_model(x, num_look_close=2, prompt=prompt)
    print("  features", tuple(outs.last_hidden_state.shape))
    save_heat_map(outs, image, arguments.output / "top_down.png")

    print("\nfeature maps")
    feature_maps = vision_model.vision_model.format_features_into_feature_maps(
        outs.last_hidden_state, outs.selection_maps
    )
    print(" ", [tuple(feature_map.shape) for feature_map in feature_maps])
    selected = [int((feature_map != 0).any(dim=1).sum()) for feature_map in feature_maps]
    print("  patches with features", selected)


if __name__ == "__main__":
    main()
