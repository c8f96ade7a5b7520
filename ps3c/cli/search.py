"""Find the images that best match a text, among the vectors that `ps3c embed` wrote.

Prints the cosine similarity and the name of each image, best match first. --text may be given several times."""

from typing import Any

from . import _console, _errors, _inputs, _model, _options, _outputs

HELP = "find images by text"


def add_arguments(parser) -> None:
    parser.add_argument("features", metavar="FEATURES", help="a file or folder that `ps3c embed` wrote")
    _options.add_model(parser)
    parser.add_argument("--text", action="append", required=True, metavar="TEXT", help="text to search for")
    parser.add_argument(
        "-n",
        "--number",
        type=_options.positive,
        default=10,
        metavar="N",
        help="number of images to print (default: 10)",
    )
    _options.add_json(parser)


def run(arguments) -> int:
    import torch

    names, vectors = _outputs.read_vectors(arguments.features)
    texts = _inputs.lines(arguments.text, "--text")
    encoder = _model.load(arguments)
    _model.need_text_tower(encoder)
    queries = encoder.embed_texts(texts).pooled.float()
    if queries.shape[1] != vectors.shape[1]:
        raise _errors.CommandError(
            f"{arguments.features}: got vectors of {vectors.shape[1]} channels, expected {queries.shape[1]}, as "
            f"{arguments.model} computes; another model may have written the file"
        )
    cosines = torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(vectors.float(), dim=1).T
    values, places = torch.sort(cosines, dim=1, descending=True, stable=True)
    found: list[dict[str, Any]] = []
    for text, row, at in zip(texts, values[:, : arguments.number].tolist(), places.tolist()):
        hits = [{"name": names[place], "cosine": cosine} for place, cosine in zip(at, row)]
        found.append({"text": text, "images": hits})
    if arguments.json:
        _console.result_json(found[0] if len(found) == 1 else found)
        return _errors.OK
    for entry in found:
        if len(found) > 1:
            _console.result(f"# {_console.printable(entry['text'])}")
        for hit in entry["images"]:
            _console.result(f"{hit['cosine']:7.4f}  {_console.printable(hit['name'])}")
    return _errors.OK
