"""The web page in a real browser: a user's actions, and no request to another machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import photograph
from PIL import Image

import ps3c
from ps3c import page
from ps3c.features.encoder import Encoder

pytest.importorskip("gradio", reason="gradio is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

CHROMIUM = "/usr/bin/chromium"
WAIT = 60_000  # milliseconds that anything on the page may take on a busy machine

# Serves the page, notes every address that the server's process asks for, and takes its time over the prompt "slowly".
SERVER = """
import sys, time

def watch(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    print("asks for", host.decode() if isinstance(host, bytes) else host, file=asked, flush=True)

asked = open(sys.argv[2], "w")
sys.addaudithook(watch)

import ps3c
from ps3c import page

encoder = ps3c.load(sys.argv[1], device="cpu")
looks = encoder.looks

def slower(image, text, *arguments, **options):
    for look in looks(image, text, *arguments, **options):
        yield look
        if text == "slowly":
            time.sleep(1)
        if text == "break":
            raise RuntimeError("the engine broke <b>here</b>")

encoder.looks = slower
try:
    page.serve(encoder, port=0)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
"""


class Server:
    """The page in a separate process, behind a proxy that does not respond."""

    def __init__(self, checkpoint: Path, folder: Path):
        self.asked, self.temporary, self.log = folder / "asked.txt", folder / "temporary", folder / "log.txt"
        self.temporary.mkdir()
        proxy = "http://127.0.0.1:9"
        environment = {**os.environ, "http_proxy": proxy, "https_proxy": proxy, "TMPDIR": str(self.temporary)}
        for name in ("NO_PROXY", "no_proxy", "GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
            environment.pop(name, None)
        with self.log.open("w") as log:
            command = [sys.executable, "-c", SERVER, str(checkpoint), str(self.asked)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def address(self) -> str:
        for _ in range(1800):
            found = re.search(r"http://127\.0\.0\.1:\d+/", self.log.read_text())
            if found:
                return found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"no page came up:\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(tiny_checkpoint, tmp_path_factory):
    server = Server(tiny_checkpoint, tmp_path_factory.mktemp("page"))
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"{CHROMIUM} is not installed")
    nothing_leaves = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=["--no-sandbox", "--no-proxy-server", nothing_leaves]
        )
        yield browser
        browser.close()


@pytest.fixture
def user(browser, server):
    """Opens a page in the browser. At the end, checks that it had no error and sent requests only to 127.0.0.1."""
    contexts, faults = [], []

    def open_page():
        context = browser.new_context(viewport={"width": 1400, "height": 1100})
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("console", lambda message: None if is_harmless(message) else faults.append(message.text))
        context.on("request", lambda request: None if is_local(request.url) else faults.append(request.url))
        page.goto(server.address())
        return User(page)

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def is_harmless(message) -> bool:
    """Is this no error, or one that does not come from ps3c's page?

    After the last event gradio's client aborts its stream of events. If the server has not ended the stream by then,
    the client writes the abort to the console as an error.
    """
    return message.type != "error" or message.text.startswith("AbortError: BodyStreamBuffer was aborted")


def is_local(url: str) -> bool:
    return bool(re.match(r"https?://127\.0\.0\.1:\d+/|data:|blob:", url))


class User:
    def __init__(self, page):
        self.page = page

    def upload(self, file) -> None:
        self.page.set_input_files("#image input[type=file]", str(file))
        self.sees("pixels")

    def looks(self, number: int, prompt: str = "") -> None:
        self.page.fill("#prompt textarea", prompt)
        self.fill("looks", number)
        self.page.click("#look")

    def fill(self, slider: str, number: int) -> None:
        self.page.fill(f"#{slider} input[type=number]", str(number))
        self.page.press(f"#{slider} input[type=number]", "Tab")

    def sees(self, text: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator("#status")).to_contain_text(text, timeout=WAIT)

    def picture(self, name: str, other_than: str = "") -> str:
        """Waits for a picture with a new address, and checks that it is not blank. Returns the address."""
        there = (
            "([name, old]) => { const i = document.querySelector(`#${name} img`); "
            "return i && i.complete && i.naturalWidth > 100 && i.src !== old }"
        )
        self.page.wait_for_function(there, arg=[name, other_than])
        return self.page.get_attribute(f"#{name} img", "src")

    def table(self):
        return [row.split("\t") for row in self.page.inner_text("#table").splitlines()]


HEATS, TAKEN = ("heat-128", "heat-256"), ("taken-128", "taken-256")


def test_a_look(user, server, image_files):
    one = user()
    one.upload(image_files[0])
    one.looks(3, "a green rope")
    one.sees("3 looks")
    one.sees("120 × 80 pixels · 256 tokens · 240 of 320 patches (75 %)")
    heats = [one.picture(name) for name in HEATS]
    assert len(set(heats)) == len(heats)
    newest = [one.picture(name) for name in TAKEN]

    head, *rows = one.table()
    assert head == ["look", "patches at 128 px", "patches at 256 px", "tokens so far", "seconds"]
    assert [row[0] for row in rows] == ["low resolution", "1", "2", "3"]
    assert [row[3] for row in rows] == ["16", "96", "176", "256"]
    assert [row[1:3] for row in rows] == [["–", "–"], *[["16", "64"]] * 3]
    assert all(float(row[4]) >= 0 for row in rows)

    one.fill("shown", 1)
    first = [one.picture(name, other_than=old) for name, old in zip(TAKEN, newest)]
    one.fill("shown", 2)
    second = [one.picture(name, other_than=old) for name, old in zip(TAKEN, first)]
    assert all(len(set(of_scale)) == 3 for of_scale in zip(newest, first, second))
    folder = os.environ.get("PS3C_SCREENSHOTS")
    if folder:
        one.page.screenshot(path=os.path.join(folder, "page.png"), full_page=True)


def test_what_the_pictures_show(user, server, image_files, encoder):
    """The page shows the patches that the encoder selected in each look."""
    one = user()
    one.upload(image_files[2])
    one.looks(1)
    one.sees("1 look")
    source = one.picture("taken-128")
    pixels = np.asarray(Image.open(_bytes(one.page.request.get(source).body())).convert("RGB"), np.float32)
    image = np.asarray(Image.open(image_files[2]).resize(pixels.shape[1::-1]), np.float32)
    cells = lambda values: values.mean(axis=2).reshape(8, values.shape[0] // 8, 8, -1).mean(axis=(1, 3))  # noqa: E731
    bright = cells(pixels) > 0.6 * cells(image)
    positions = list(encoder.looks(image_files[2], looks=1))[1].positions.numpy()
    taken = np.zeros((8, 8), bool)
    taken[tuple(positions[positions[:, 0] == 1][:, 1:].T)] = True
    np.testing.assert_array_equal(bright, taken)


def _bytes(content: bytes):
    import io

    return io.BytesIO(content)


def test_again_and_everything(user, image_files):
    """A second run with another image, started with the Enter key; then only low resolution."""
    one = user()
    one.upload(image_files[0])
    one.looks(1, "a face")
    one.sees("1 look")
    before = one.picture(HEATS[0])
    one.page.click("#image button[aria-label^=Remove], #image button[aria-label=Clear]")  # gradio 6; 5
    one.upload(image_files[1])
    one.fill("looks", 4)
    one.page.press("#prompt textarea", "Enter")
    one.sees("4 looks")
    one.sees("64 × 200 pixels · 336 tokens · 320 of 320 patches (100 %)")
    one.picture(HEATS[0], other_than=before)
    one.looks(0)
    one.sees("Low resolution")
    one.sees("16 tokens · 0 of 320 patches")
    one.picture(HEATS[1])


def test_the_example(user):
    if page.server._example() is None:
        pytest.skip("this matplotlib lacks its sample photograph")
    one = user()
    one.page.click("#example")
    one.page.wait_for_selector("#image img")
    one.page.click("#look")
    one.sees("2 looks")
    one.sees("512 × 600 pixels")


def test_images_that_browsers_cannot_show(user, tmp_path):
    """The page also shows a 16-bit TIFF as the input image."""
    grey = np.asarray(photograph(300, 200).convert("L"), np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.tiff")
    one = user()
    one.upload(tmp_path / "deep.tiff")
    one.picture("image")
    one.looks(1)
    one.sees("300 × 200 pixels · 96 tokens")


def test_errors_are_messages(user, server, image_files, tmp_path):
    (tmp_path / "no<b>image.png").write_text("a text")
    one = user()
    one.page.click("#look")
    one.sees("There is no image yet")
    one.page.set_input_files("#image input[type=file]", str(tmp_path / "no<b>image.png"))
    one.sees("is not an image")
    assert "Traceback" not in server.log.read_text()
    one.upload(image_files[0])
    one.looks(2, "break")
    one.sees("RuntimeError: the engine broke <b>here</b>")  # and not in bold
    assert "the engine broke" in server.log.read_text()
    one.looks(1, "whole")
    one.sees("1 look")


def test_looks_come_one_by_one_and_can_be_stopped(user, image_files):
    one = user()
    one.upload(image_files[0])
    one.looks(4, "slowly")
    one.sees("Look 2 of 4")
    one.picture(HEATS[0])
    one.picture(TAKEN[0])
    one.page.click("#stop")
    one.sees("Stopped after")
    one.looks(1)
    one.sees("1 look")


def test_users_queue_up(user, image_files):
    one, two = user(), user()
    one.upload(image_files[0])
    two.upload(image_files[1])
    one.looks(2, "slowly")
    one.sees("Look 1 of 2")
    two.looks(1)
    two.sees("1 look")
    one.sees("2 looks")


def test_nothing_leaves_the_machine(server):
    """After the tests above: the server contacted no other host. After Ctrl-C it ends and leaves no files."""
    server.address()
    assert any(server.temporary.iterdir())
    server.stop()
    log = server.log.read_text()
    assert server.process.returncode == 0 and "interrupted" in log
    assert "Warning" not in log
    hosts = {line.removeprefix("asks for ") for line in server.asked.read_text().splitlines()}
    assert hosts <= {"127.0.0.1", "localhost", "None"}
    assert list(server.temporary.glob("ps3c-demo-*")) == []


def test_port_in_use(encoder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"^port {port} cannot be used: Address already in use; choose another one$"):
            page.serve(encoder, port)
    with pytest.raises(ValueError, match="port: got 65536, expected 0 to 65535"):
        page.serve(encoder, 65536)


def test_without_a_text_tower(encoder):
    vision = Encoder(encoder.model, encoder.processor, None, folder=encoder.folder)
    prompts = [
        component["props"]
        for component in page.build(vision).config["components"]
        if component["props"].get("elem_id") == "prompt"
    ]
    assert [(prompt["interactive"], prompt["placeholder"]) for prompt in prompts] == [
        (False, "this model cannot encode texts")
    ]


def test_without_gradio(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(
        ps3c.MissingExtraError, match=r"gradio: not installed, needed for ps3c demo; type pip install '.\[demo\]'"
    ):
        page.build(encoder)
