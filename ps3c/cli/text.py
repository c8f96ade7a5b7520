"""Encode texts to vectors. Prints one line of JSON per text, or writes a file.

The dot product of a text's vector and an image's vector is their cosine similarity."""

from pathlib import Path

from .._temporary import remove_stale
from . import _console, _errors, _inputs, _model, _options, _outputs

HELP = "encode texts to vectors"


def add_arguments(parser) -> None:
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="texts, or - to read one text per line from stdin")
    _options.add_model(parser)
    parser.add_argument("-o", "--output", metavar="OUT", help=f"file to write: {', '.join(_outputs.SUFFIXES)}")
    _options.add_force(parser)
    parser.add_argument("--prompt", action="store_true", help="also print the prompt vector, which selects patches")
    parser.add_argument("--no-normalize", action="store_true", help="do not scale the vectors to length 1")
    _options.add_batch_size(parser)
    _options.add_json(parser)


def run(arguments) -> int:
    if arguments.output is not None:
        _outputs.check_suffix(arguments.output)
        _outputs.refuse_existing(arguments.output, arguments.force)
    texts = _inputs.lines(arguments.texts, "TEXT")
    encoder = _model.load(arguments)
    _model.need_text_tower(encoder)
    features = encoder.embed_texts(texts, normalize=not arguments.no_normalize, batch_size=arguments.batch_size)
    if arguments.output is not None:
        remove_stale(Path(arguments.output).parent)
        features.save(arguments.output, overwrite=arguments.force)
        _console.say(f"{arguments.output}: {len(texts)} vectors of {features.pooled.shape[1]} channels")
        if arguments.json:
            channels = features.pooled.shape[1]
            _console.result_json({"output": arguments.output, "texts": len(texts), "channels": channels})
        return _errors.OK
    rows = [{"text": text, "vector": vector} for text, vector in zip(texts, features.pooled.float().tolist())]
    if arguments.prompt:
        for row, prompt in zip(rows, features.prompt.float().tolist()):
            row["prompt"] = prompt
    if arguments.json:
        _console.result_json(rows, indent=None)
    else:
        for row in rows:
            _console.result_json(row, indent=None)
    return _errors.OK
