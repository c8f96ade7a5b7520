"""The rooms of ps3c/: which may import from which, no circle, one way to the engine, and former names of modules."""

import ast
import importlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ps3c
from ps3c import _moved
from ps3c.cli import _selftest
from ps3c.engine import core, words

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ps3c"

pytestmark = pytest.mark.skipif(not PACKAGE.is_dir(), reason="the sources are not beside the tests")

# Lowest first: a room imports from rooms before it and from itself.
ORDER = ("leaves", "engine", "torch_api", "plot", "features", "names", "page", "cli", "command")
ALONE = {"ps3c": "names", "ps3c.__main__": "command"}  # the public names; the other files beside them are leaves


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module):
    if module in ALONE:
        return ALONE[module]
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or FILES[module].name == "__init__.py" else "leaves"


def absolute(module, path, node):
    """The full names that an import statement of `module` asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        base = ".".join(package[: len(package) - node.level + 1] + ([node.module] if node.module else []))
    return [f"{base}.{alias.name}" for alias in node.names]


def imports(module, path, tree):
    """Modules of ps3c that `module` imports, also inside functions; without those for type checkers alone."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in typing_only:
            names = absolute(module, path, node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            # importlib.import_module("ps3c.x") or (".x", __package__)
            first = node.args[0] if node.args else None
            if not isinstance(first, ast.Constant):
                continue
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            names = [package + first.value if first.value.startswith(".") else first.value]
        else:
            continue
        for name in names:
            while name.startswith("ps3c") and name not in FILES and name != "ps3c._core":
                name = name.rpartition(".")[0]
            if name.startswith("ps3c") and name != module:
                yield name


GRAPH = {module: set(imports(module, path, ast.parse(path.read_text()))) for module, path in FILES.items()}
GRAPH["ps3c"] |= {f"ps3c.{home}" for home in ps3c._HOMES.values()}  # imported by name, when first asked for


def backward(graph):
    """Imports of a higher room."""
    return [
        (module, other)
        for module, others in graph.items()
        for other in others
        if other != "ps3c._core" and ORDER.index(room(other)) > ORDER.index(room(module))
    ]


def circles(graph):
    """Modules that import themselves by way of others."""

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    return [module for module in graph if module in reached(module)]


def test_every_room_is_known():
    assert {room(module) for module in FILES} == set(ORDER)


def test_imports_point_one_way():
    assert backward(GRAPH) == []


def test_no_circles():
    assert circles(GRAPH) == []


def test_one_file_imports_the_compiled_part():
    assert [module for module, others in GRAPH.items() if "ps3c._core" in others] == ["ps3c.engine.core"]


def test_single_operations_are_not_used():
    assert not [module for module, path in FILES.items() if re.search(r"\bop_\w", path.read_text())]


def test_the_rules_can_fail():
    code = "from ..features import results\ndef f():\n    from ..cli import check\n    import ps3c._core\n"
    path = PACKAGE / "plot" / "new.py"
    found = set(imports("ps3c.plot.new", path, ast.parse(code)))
    assert found == {"ps3c.features.results", "ps3c.cli.check", "ps3c._core"}
    assert len(backward({"ps3c.plot.inputs": found})) == 2
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]


@pytest.mark.parametrize("module", ["ps3c.engine.core", "ps3c.engine.models", "ps3c.engine.words"])
def test_the_engine_needs_no_torch(module):
    """The argument makes ps3c take the process for its command, which imports nothing before it is asked."""
    code = f"import sys; sys.argv = ['ps3c']; import {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _moved.MOVED)
def test_former_names_are_the_same_modules(name):
    module = importlib.import_module(f"ps3c.{name}")
    assert module is importlib.import_module(f"ps3c.{_moved.MOVED[name]}")
    assert module.__spec__.name == module.__name__ == f"ps3c.{_moved.MOVED[name]}"
    assert getattr(ps3c, name) is module


def test_former_names_in_a_new_process():
    """Nothing else has imported the modules yet."""
    code = (
        "import sys; sys.argv = ['ps3c']\n"
        "from ps3c.architectures import ARCHITECTURES\n"
        "import ps3c.saving, ps3c.encoder as encoder\n"
        "assert ps3c.saving.load_features is ps3c.load_features and encoder.Encoder is ps3c.Encoder\n"
        "assert ps3c.modeling_ps3.PS3Model is ps3c.PS3Model\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_has_a_former_name_and_no_other_is_made_up():
    for name in _moved.MOVED:
        assert not (PACKAGE / name).exists() and not (PACKAGE / f"{name}.py").exists()
    for name in ("ps3c.no_such_module", "ps3c.cli.modeling_ps3"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    with pytest.raises(AttributeError, match="no_such_name"):
        ps3c.no_such_name  # noqa: B018


def test_pickles_that_name_former_modules():
    """What a pickle of a whole model names; GLOBAL is how a pickle of protocol 0 does."""
    for module, name in (
        ("modeling_ps3", "PS3VisionModel"),
        ("_modules", "Trunk"),
        ("_engine", "Engine"),
        ("architectures", "Architecture"),
        ("utils_radio_adapter_mlp", "AdapterV2"),
    ):
        found = pickle.loads(f"cps3c.{module}\n{name}\n.".encode())
        assert found is getattr(importlib.import_module(f"ps3c.{_moved.MOVED[module]}"), name)


def test_dir_shows_public_names_alone():
    assert set(dir(ps3c)) == {*ps3c.__all__, "__version__", "errors", "images", "plot"}
    assert all(getattr(ps3c, name) is not None for name in dir(ps3c))


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, said, expected",
    [
        (words.VISION, "conv_width: got 0", "highres_selection_module_hidden_dim: got 0"),
        (words.VISION, "scales[1]: got 2 after 3", "ps3_scales[1]: got 2 after 3"),
        (words.VISION, "adapter: got 7", "radio_adapter_mlp_version: got 7"),
        (words.VISION, "smooth: got a smooth map", "smooth_selection_prob: got a smooth map"),
        (words.VISION, "hidden_states: got 9, expected 1", "num_hidden_layers_to_return: got 9, expected 1"),
        (words.VISION, "hidden_states[2]: got shape (1, 2)", "hidden_states[2]: got shape (1, 2)"),
        (words.VISION, "prompt, gt_maps: got one", "prompt, gt_selection_maps: got one"),
        (words.VISION, "pool_gt_only: without gt_maps", "pool_gt_token_only: without gt_selection_maps"),
        (words.VISION, "pixel_values: scales of depth 3", "pixel_values: scales of depth 3"),
        (words.VISION, "weights: trunk.first_n_scales.gt_maps", "weights: trunk.first_n_scales.gt_maps"),
        (words.VISION, "max_select_num_each_scale: got 0", "max_select_num_each_scale: got 0"),
        (words.TEXT, "ids[0][3]: got 99, expected an id", "text[0][3]: got 99, expected an id"),
        (words.TEXT, "depth: got 0", "layers: got 0"),
        (words.TEXT, "prompt_dim: got 0", "prompt_proj_dim: got 0"),
        (words.TEXT, "text: got 3 ids of depth 2", "text: got 3 ids of depth 2"),
    ],
)
def test_words_of_the_engine(names, said, expected):
    assert words.translate(said, names) == expected
    assert words.translate(expected, names) == expected  # Python's names stay


def test_words_keep_the_exception():
    error = NotImplementedError("gt_maps: got 2", 7)
    with pytest.raises(NotImplementedError) as caught, words.translated(words.VISION):
        raise error
    assert caught.value is error and error.args == ("gt_selection_maps: got 2", 7)


def test_words_are_fields_of_the_engine():
    """A field that the engine no longer has, or that was misspelt, would never be replaced."""
    header = (ROOT / "csrc" / "ps3c.h").read_text()
    for name in {*words.VISION, *words.TEXT}:
        assert re.search(rf"\b{name}\b", header), name


@pytest.mark.parametrize(
    "model, config, field, name",
    [
        (core.VisionModel, _selftest.SIGLIP, "scales", "ps3_scales"),
        (core.VisionModel, _selftest.C_RADIO, "adapter_hidden", "radio_adapter_mlp_hidden_dim"),
        (core.TextModel, _selftest.TEXT, "prompt_dim", "prompt_proj_dim"),
    ],
)
def test_words_at_the_door(model, config, field, name):
    wrong = [56, 28, 14] if isinstance(config[field], list) else -1
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        model({**config, field: wrong})
