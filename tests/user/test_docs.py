"""The documentation builds without warnings, its links have targets, and its examples work."""

import ast
import os
import re
import shlex
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT, photograph

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not path.relative_to(DOCS).parts[0].startswith("_"))
RUNNABLE = [ROOT / "README.md", DOCS / "quickstart.md", DOCS / "moving.md", *sorted((DOCS / "guides").glob("*.md"))]
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<kind>\w+)\n(?P<body>.*?)^(?P=fence)$", re.M | re.S)
MODEL, IMAGE, FOLDER = "nvidia/PS3-4K-SigLIP2", "dock.jpg", "photos"

pytestmark = pytest.mark.skipif(not DOCS.joinpath("conf.py").exists(), reason="the sources are not beside the tests")


def name_of(path):
    return str(path.relative_to(ROOT))


def blocks(path, *kinds):
    return [match["body"] for match in FENCE.finditer(path.read_text(encoding="utf-8")) if match["kind"] in kinds]


# ---- the pages that are built ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of HTML pages, built with warnings as errors."""
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason=f"{package} is not installed (pip install -r docs/requirements.txt)")
    folder = tmp_path_factory.mktemp("docs")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(folder / "doctrees"),
        str(DOCS),
        str(folder / "html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """The links of a page (`links`), the files it loads (`loads`) and its link targets (`places`)."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if values.get("id"):
            self.places.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("href"):
            fetched = values.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "prefetch")
            (self.loads if fetched else self.links).append(values["href"])
        if tag != "a":
            self.loads += [values[name] for name in ("src", "poster", "data") if values.get(name)]


def test_links_lead_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 15
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                broken.append(f"{path.name}: {link}: no such place")
    assert not broken


def test_pages_load_nothing_from_other_hosts(site):
    for path in site.rglob("*.html"):
        for load in Page(path).loads:
            assert load.startswith("data:") or not urlsplit(load).netloc, f"{path.name}: {load}"
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"(?:url\(|@import )\s*[\"']?((?:https?:)?//[^\"')]+)", text):
            raise AssertionError(f"{path.name}: {target}")


def test_references_are_whole(site):
    """Every subcommand, every function of the headers and every public Python name has a link target."""
    from ps3c.cli import SUBCOMMANDS

    commands = Page(site / "reference" / "cli.html").places
    assert {f"ps3c-{name}" for name in SUBCOMMANDS} <= commands
    for header, page, least in (("ps3c.h", "c-engine.html", 20), ("ps3c_model.h", "c.html", 12)):
        text = (ROOT / "csrc" / header).read_text(encoding="utf-8")
        functions = set(re.findall(r"^[a-z].*?\b(ps3c_\w+)\(", text, re.M))
        assert len(functions) > least
        assert {f"c.{name}" for name in functions} <= Page(site / "reference" / page).places
    import ps3c

    names = {f"ps3c.{name}" for name in ps3c.__all__}
    assert names <= Page(site / "reference" / "python.html").places


# ---- what the pages show ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RUNNABLE, ids=name_of)
def test_python_blocks_run(path, tiny_checkpoint, tmp_path, monkeypatch):
    """The Python blocks of a page run in order, with the tiny model instead of the published one."""
    code = [block for block in blocks(path, "python") if "x.cuda()" not in block]
    assert code
    if "plot." in "".join(code):
        pytest.importorskip("matplotlib", reason="the page draws pictures")
    if ".parquet" in "".join(code):
        pytest.importorskip("pyarrow", reason="the page writes a Parquet file")
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath(MODEL).parent.mkdir()
    tmp_path.joinpath(MODEL).symlink_to(tiny_checkpoint)
    tmp_path.joinpath(FOLDER).mkdir()
    photograph(300, 200).save(IMAGE)
    for seed in range(3):
        photograph(90, 60, seed).save(f"{FOLDER}/{seed}.jpg")
    names = {"__name__": "__page__"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        for number, block in enumerate(code, 1):
            exec(compile(block, f"{path.name}, block {number}", "exec"), names)


def commands():
    """(where, words) of every `ps3c ...` line in the documentation, the README and the help texts."""
    from ps3c.cli import SUBCOMMANDS

    pages = [*PAGES, ROOT / "README.md"]
    texts = [(name_of(path), body) for path in pages for body in blocks(path, "sh", "console", "bash")]
    for name in SUBCOMMANDS:
        path = ROOT / "ps3c" / "cli" / f"{name}.py"
        texts.append((name_of(path), ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""))
    for where, text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s[|]\s", line.strip().removeprefix("$ ")):
                if part.startswith("ps3c "):
                    yield where, shlex.split(part, comments=True)[1:]


def test_commands_are_understood():
    from ps3c.cli import build_parser

    found = list(commands())
    assert len(found) > 15
    assert {words[0] for _, words in found} >= {"embed", "search", "look", "demo", "bench", "info", "doctor"}
    for where, words in found:
        try:
            build_parser().parse_args(words)
        except SystemExit as end:
            assert end.code == 0, f"{where}: ps3c {shlex.join(words)}"


# ---- messages --------------------------------------------------------------------------------------------------------

GAP = "\0"  # in a message: where something is filled in


def literals():
    """All string literals of the sources, one per paragraph. GAP replaces formatted values."""
    texts = []
    for path in [*(ROOT / "ps3c").rglob("*.py"), *(ROOT / "python").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values))
    for path in (ROOT / "csrc").rglob("*.c"):
        for run in re.findall(r'"(?:[^"\\\n]|\\.)*"(?:\s*"(?:[^"\\\n]|\\.)*")*', path.read_text(encoding="utf-8")):
            text = "".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', run))
            texts.append(re.sub(r"%[-+ #0]*[\d.*]*(?:ll|z|l|j)?[diufgxXsp]", GAP, text.replace('\\"', '"')))
    return "\n\n".join(texts)


def is_said(message, said):
    """True if a string has the parts of the message in order, with any text in place of "…"."""
    pieces = [re.escape(piece.strip(" :;,")) for piece in message.split("…") if re.search(r"\w", piece)]
    return re.search(r"[^\n]*?".join(pieces), said) is not None


def test_messages_exist():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [match[2].strip() for match in re.finditer(r"^### (`+)(.+?)\1$", text, re.M)]
    assert len(messages) > 30
    said = literals()
    assert not is_said("no message says … such a thing", said)
    assert [message for message in messages if not is_said(message, said)] == []
