"""The web page of `ps3c demo`: shows where the model looks in an image, for a text, look by look.

The server listens only on 127.0.0.1 and contacts no other machine; the page loads no fonts, scripts or statistics from
the network. Requests of other web pages, and for other host names, are refused (guard.py). Uploads are stored in a
temporary folder, which is removed when the server ends (uploads.py). Needs the extra `demo`
(gradio, matplotlib).
"""

import inspect
import os
import socket
import sys
import threading
import time
import traceback
import warnings
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from .. import _arguments
from .._arguments import Colour
from .._extras import require
from .._signals import ending_on_signals, not_lost
from ..errors import ImageError
from ..features.encoder import Encoder
from ..features.hub import name_of
from ..images import open_image
from . import view
from .guard import Guard, plain_host
from .uploads import upload_folder

HOST = "127.0.0.1"
MOST_BYTES = 128 << 20  # of an uploaded file, also where max_pixels would allow more
BROWSERS_SHOW = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}
EXAMPLE = ("grace_hopper.jpg", "the medals on her uniform")  # a photograph that matplotlib installs
CSS = """
.gradio-container {max-width: 1500px !important}
.ps3c-head h1 {font-size: 1.5rem; font-weight: 600; margin: 0}
.ps3c-head p {margin: 0; opacity: .75}
.ps3c-head .html-container, #status .html-container, #table .html-container {padding: 0}
.ps3c-status {padding: .6rem .9rem; border-left: 4px solid var(--primary-500); border-radius: 4px;
  background: var(--background-fill-secondary); color: var(--body-text-color)}
.ps3c-status b {margin-right: .6rem}
.ps3c-bar {height: .4rem; margin-top: .45rem; border-radius: .2rem; background: var(--border-color-primary)}
.ps3c-bar div {height: 100%; border-radius: .2rem; background: var(--primary-500)}
.ps3c-note {border-color: var(--border-color-primary)}
.ps3c-error {border-color: #d33; background: rgba(221, 51, 51, .12)}
.ps3c-table {max-height: 20rem; overflow: auto}
.ps3c-table table {width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums}
.prose .ps3c-table :is(table, tr, th, td) {border: 0}
.prose .ps3c-table :is(th, td) {padding: .2rem .6rem; text-align: right;
  border-bottom: 1px solid var(--border-color-primary)}
.prose .ps3c-table :is(th, td):first-child {text-align: left}
.ps3c-table i {display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 2px}
"""


def build(encoder: Encoder, *, max_pixels: int | None = None, background: Colour = "white") -> Any:
    """Creates the page as gradio.Blocks.

    Args:
        max_pixels: the largest accepted number of pixels of an image. None: Pillow's limit.
        background: the colour behind transparent pixels, such as "white", "#rrggbb" or (r, g, b).

    Raises:
        MissingExtraError: gradio or matplotlib is not installed. TypeError, ValueError: background is no colour.
    """
    _arguments.background(background)
    gr = _gradio()
    require("matplotlib.cm", "demo", "ps3c demo")  # imported now, so that the first look does not wait for it
    example = _example()
    scales, most = list(encoder.scales), _most_looks(encoder)
    with gr.Blocks(
        title="ps3c", analytics_enabled=False, delete_cache=(3600, 3600), **_known(gr.Blocks, _style(gr))
    ) as blocks:
        run = gr.State()
        gr.HTML(_headline(encoder), elem_classes="ps3c-head")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                image = gr.Image(
                    label="Image",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    height=280,
                    elem_id="image",
                    **_known(gr.Image, {"buttons": [], "show_download_button": False}),
                )
                # Only the path: ps3c opens images itself, with its own error messages.
                image.preprocess = lambda file: None if file is None else file.path
                prompt = gr.Textbox(
                    label="What to look for",
                    elem_id="prompt",
                    interactive=encoder.tokenizer is not None,
                    placeholder="empty: salient patches" if encoder.tokenizer else "this model cannot encode texts",
                )
                looks = gr.Slider(
                    0,
                    most,
                    value=min(2, most),
                    step=1,
                    label="Looks",
                    elem_id="looks",
                    info=f"0: low resolution only; {most}: all patches",
                )
                with gr.Row():
                    start = gr.Button("Look", variant="primary", elem_id="look", min_width=80)
                    stop = gr.Button("Stop", elem_id="stop", min_width=80)
                take = gr.Button("Use the example photograph", size="sm", elem_id="example", visible=bool(example))
            with gr.Column(scale=3, min_width=480):
                status = gr.HTML(view.note("Add an image, type what to look for, and press Start."), elem_id="status")
                with gr.Row():
                    heats = [_picture(gr, f"Heat map, {scale} px", f"heat-{scale}") for scale in scales[1:]]
                shown = gr.Slider(
                    0, 1, value=0, step=1, label="Show looks up to number", interactive=False, elem_id="shown"
                )
                with gr.Row():
                    taken = [_picture(gr, f"Patches, {scale} px", f"taken-{scale}") for scale in scales[1:]]
                table = gr.HTML(elem_id="table")

        events = _Events(gr, encoder, max_pixels, background)
        quick: dict[str, Any] = dict(_private(gr), show_progress="hidden", concurrency_limit=4)
        looking = gr.on(
            [start.click, prompt.submit],
            events.look,
            [image, prompt, looks],
            [run, status, table, shown, *heats, *taken],
            concurrency_limit=1,
            trigger_mode="once",
            show_progress="minimal",
            **_private(gr),
            **_known(gr.on, {"show_progress_on": status}),
        )
        stop.click(events.stopped, run, [status, shown], cancels=[looking], **quick)
        shown.input(events.step, [run, shown], taken, trigger_mode="always_last", **quick)
        image.upload(events.receive, image, [image, status], **quick)
        # A button, because gradio's Examples cause errors in the browser if they load slowly.
        take.click(lambda: (example, EXAMPLE[1] if encoder.tokenizer else ""), None, [image, prompt], **quick)
    return blocks


def serve(
    encoder: Encoder,
    port: int = 7860,
    open_browser: bool = False,
    *,
    max_pixels: int | None = None,
    background: Colour = "white",
    hosts: Sequence[str] = (),
) -> None:
    """Serves the page on http://127.0.0.1:port/ until it is interrupted. Prints the address to stderr.

    Args:
        port: 0 selects a free port. open_browser: also opens the page in the browser.
        max_pixels: as in build. It also limits the bytes of an uploaded file: 8 per pixel, at least 1 MiB, at most
            128 MiB. background: as in build.
        hosts: names of this machine, besides 127.0.0.1 and localhost, under which a proxy in front of the server
            offers the page. Requests for other names are refused.

    Raises:
        OSError: the port is in use or not permitted. MissingExtraError: as in build. ValueError: port, hosts or
            background.
        KeyboardInterrupt: the server was interrupted and has been closed.
        SystemExit: SIGTERM or SIGHUP arrived, and the server has been closed.
    """
    hosts = [plain_host(name) for name in hosts]
    port = _free_port(port)
    with ending_on_signals(), upload_folder() as folder, _environment(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="gradio")  # deprecated functions that gradio itself calls
        with not_lost():
            blocks = build(encoder, max_pixels=max_pixels, background=background)
        example = _example()
        options = {"footer_links": [], "show_api": False, "mcp_server": False, "pwa": False, **_style(_gradio())}
        try:
            with not_lost():
                blocks.launch(
                    server_name=HOST,
                    server_port=port,
                    share=False,
                    quiet=True,
                    inbrowser=False,
                    inline=False,
                    prevent_thread_lock=True,
                    enable_monitoring=False,
                    root_path="",
                    ssr_mode=False,
                    allowed_paths=[example] if example else [],  # it is outside the folder of uploads
                    max_file_size=_most_bytes(max_pixels),
                    app_kwargs=_guarded(hosts, _most_bytes(max_pixels) + (64 << 10)),  # a form's own lines
                    **_known(blocks.launch, options),
                )
                address = f"http://{HOST}:{port}/"
                # The end of line in the text, so that there is one write: a signal's message cannot stand between.
                message = f"ps3c: {address} serves {encoder.folder}; Ctrl-C stops it\n"
                print(message, end="", file=sys.stderr, flush=True)
                if open_browser:
                    webbrowser.open(address)
            threading.Event().wait()
        finally:
            blocks.close(verbose=False)


def _most_bytes(max_pixels: int | None) -> int:
    """The largest accepted file: 8 bytes per pixel, as an uncompressed 16-bit image with alpha has."""
    pixels = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    return MOST_BYTES if pixels is None else min(MOST_BYTES, max(8 * pixels, 1 << 20))


def _guarded(hosts: Sequence[str], most_bytes: int) -> dict[str, Any]:
    """Options of gradio's FastAPI application that put a Guard before everything else."""
    from starlette.middleware import Middleware

    @asynccontextmanager
    async def outermost(app: Any) -> AsyncIterator[None]:
        # gradio adds middleware of its own before `middleware`; it would answer some requests of other pages.
        app.middleware_stack = Guard(app.middleware_stack, hosts, most_bytes)
        yield

    return {"middleware": [Middleware(Guard, hosts=hosts, most_bytes=most_bytes)], "lifespan": outermost}


# ---- event handlers ------------------------------------------------------------------------------------------------


class _Events:
    """The event handlers. Each docstring begins with the components that receive the returned values."""

    def __init__(self, gr: Any, encoder: Encoder, max_pixels: int | None, background: Colour):
        self.gr, self.encoder, self.max_pixels, self.background = gr, encoder, max_pixels, background
        self.blank = [None] * (len(encoder.scales) - 1)
        self.same = [gr.skip()] * len(self.blank)

    def look(self, file: str | None, prompt: str, looks: float) -> Iterator[tuple[Any, ...]]:
        """run, status, table, shown, heats, taken: after each look."""
        if file is None:
            yield self._empty(None, view.failure("There is no image yet. Add one on the left, or use the example."))
            return
        run = None
        try:
            image = _opened(file, self.max_pixels, self.background)
            run = view.Run(image.size, (prompt or "").strip() or None, int(looks), list(self.encoder.scales))
            yield self._empty(run, view.status(run))
            begin = time.perf_counter()
            for one in self.encoder.looks(image, run.text, run.asked, progress=False, max_pixels=self.max_pixels):
                if run.state != "looking":
                    return
                run.add(one, time.perf_counter() - begin)
                run.state = "done" if run.last >= run.asked else run.state
                yield self._newest(run, view.heat_maps(run) if one.number == 0 else self.same)
                begin = time.perf_counter()
            if run.state == "looking":  # all patches are encoded, with fewer looks than requested
                run.state = "done"
                yield self._newest(run, self.same)
        except Exception as error:
            failure = view.failure(_sentence(error))
            if run is None or run.last < 0:
                yield self._empty(None, failure)
            else:
                run.state = "failed"
                yield (run, failure, self.gr.skip(), self._slider(run), *self.same, *self.same)

    def stopped(self, run: view.Run | None) -> Any:
        """status, shown."""
        if run is None or run.state != "looking":
            return self.gr.skip()
        run.state = "stopped"
        return view.status(run), self._slider(run)

    def step(self, run: view.Run | None, number: float | None) -> Any:
        """taken."""
        return view.patches(run, int(number)) if run and run.orders and number is not None else self.gr.skip()

    def receive(self, file: str | None) -> Any:
        """image, status: checks an uploaded image. Converts formats that browsers cannot show to PNG."""
        if file is None:
            return self.gr.skip()
        try:
            image = _opened(file, self.max_pixels, self.background)
            value = self.gr.skip()
            if Path(file).suffix.lower() not in BROWSERS_SHOW:
                value = str(Path(file).with_suffix(".png"))
                image.save(value)
        except Exception as error:
            return None, view.failure(_sentence(error))
        return value, view.note(f"{image.width} × {image.height} pixels")

    def _empty(self, run: view.Run | None, status: str) -> tuple[Any, ...]:
        # The slider's range is set once, to the requested number of looks: browsers draw the knob in a wrong place if
        # the range grows together with the value.
        slider = self.gr.update(value=0, maximum=max(run.asked, 1) if run else 1, interactive=False)
        return (run, status, "", slider, *self.blank, *self.blank)

    def _newest(self, run: view.Run, heats: Sequence[Any]) -> tuple[Any, ...]:
        return (run, view.status(run), view.table(run), self._slider(run), *heats, *view.patches(run, run.last))

    def _slider(self, run: view.Run) -> Any:
        most = run.asked if run.state == "looking" else run.last
        return self.gr.update(maximum=max(most, 1), value=max(run.last, 0), interactive=run.last > 0)


def _opened(file: str, max_pixels: int | None, background: Colour) -> Image.Image:
    try:
        return open_image(file, max_pixels=max_pixels, background=background)[0]
    except ImageError as error:  # shown without gradio's temporary folder
        raise ImageError(Path(error.name).name, error.reason) from error


def _sentence(error: Exception) -> str:
    """The message that the page shows for an error. An error that may be a bug is also printed to the terminal."""
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, MemoryError)) and text:
        return text
    traceback.print_exception(type(error), error, error.__traceback__)
    return f"{type(error).__name__}: {text}"


# ---- pieces of the page --------------------------------------------------------------------------------------------


def _headline(encoder: Encoder) -> str:
    name, sizes = name_of(encoder.folder), ", ".join(map(str, encoder.scales))
    facts = f"{name} · {sizes} pixels · {str(encoder.dtype).removeprefix('torch.')} on {encoder.device}"
    return f"<h1>Where PS3 looks</h1><p>{escape(facts)}</p>"


def _picture(gr: Any, label: str, name: str) -> Any:
    options = {"buttons": ["fullscreen", "download"], "show_share_button": False}
    return gr.Image(
        label=label, interactive=False, format="jpeg", min_width=200, elem_id=name, **_known(gr.Image, options)
    )


def _example() -> str | None:
    import matplotlib

    path = Path(matplotlib.get_data_path(), "sample_data", EXAMPLE[0])
    return str(path) if path.exists() else None  # distributions leave the sample data out


def _most_looks(encoder: Encoder) -> int:
    """The number of looks that encode every patch of a square image, which has the most patches."""
    vision = encoder.model.vision_model
    patches = sum((scale // vision.patch_size) ** 2 for scale in encoder.scales[1:])
    return -(-patches // sum(vision.max_select_num_each_scale))


def _style(gr: Any) -> dict[str, Any]:
    # System fonts: gradio's default fonts would be downloaded from Google if they are not installed.
    sans, mono = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")], [gr.themes.Font("monospace")]
    return {"theme": gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=sans, font_mono=mono), "css": CSS}


# ---- gradio without network access ---------------------------------------------------------------------------------


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it at import and later
    return require("gradio", "demo", "ps3c demo")


def _known(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that the installed gradio's function has: gradio 6 renamed and moved some options of gradio 5."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in names}


def _private(gr: Any) -> dict[str, Any]:
    return _known(gr.on, {"api_visibility": "private"}) or {"api_name": False}


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Sets environment variables: gradio stores its files in `folder` and bypasses a proxy for its start-up check."""
    ways = [part for part in os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")).split(",") if part.strip()]
    proxy = ",".join([*ways, HOST, "localhost"])
    new = {"GRADIO_TEMP_DIR": folder, "NO_PROXY": proxy, "no_proxy": proxy, "HF_HUB_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _free_port(port: int) -> int:
    """port, or a free port for 0. OSError if the port is in use or not permitted."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port: got {port}, expected 0 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise OSError(f"port {port} cannot be used: {error.strerror}; choose another one") from error
        return probe.getsockname()[1]
