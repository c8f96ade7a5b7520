"""The page and requests that are not its own: other hosts, other origins, redirects, large bodies; and its files."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from cli_support import environment

from ps3c.page.guard import Guard, plain_host

BOUNDARY = "x" * 20


# ---- the guard alone -----------------------------------------------------------------------------------------------


def ask(guard, path="/", method="GET", body=b"", **headers):
    """The status of a request. A header of None is not sent."""
    headers = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items() if value is not None],
    }
    sent, pieces = [], [body[i : i + 1000] for i in range(0, max(len(body), 1), 1000)]

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"]


async def application(scope, receive, send):
    """Reads the body, then answers; redirects where ?to= says."""
    while (await receive())["more_body"]:
        pass
    target = dict(scope["headers"]).get(b"x-to")
    await send(
        {
            "type": "http.response.start",
            "status": 302 if target else 200,
            "headers": [(b"location", target)] if target else [],
        }
    )
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def guard():
    return Guard(application, ["Proxy.Example.org"], 10_000)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9", "localhost:7860", "LOCALHOST", "[::1]:7860", "proxy.example.org", "localhost."]
)
def test_own_hosts(guard, host):
    assert ask(guard, host=host) == 200
    assert ask(guard, host=host, origin=f"http://{host}", sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "evil.example:7860", "localhost.evil", "10.0.0.1", "0.0.0.0", "[::2]",
     "127.0.0.1@evil.example", "evil.example/127.0.0.1", "127.0.0.1 evil.example", "", "127.0.0.1:x", None],
)  # fmt: skip
def test_foreign_hosts(guard, host):
    assert ask(guard, host=host) in (400, 403)


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:7860", "https://evil.example:7860",
     "http://127.0.0.1:7860.evil.example", "http://127.0.0.1:7860@evil.example", "file://", "", "http://[::1", "x"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_foreign_origins(guard, origin, method):
    assert ask(guard, "/gradio_api/upload", method, origin=origin) == 403


def test_the_origin_of_a_proxy(guard):
    assert ask(guard, origin="https://proxy.example.org") == 200
    assert ask(guard, host="proxy.example.org", origin="https://other.example.org") == 403


def test_what_browsers_say_of_the_origin(guard):
    for site in ("cross-site", "same-site"):
        assert ask(guard, "/gradio_api/info", sec_fetch_site=site, sec_fetch_mode="no-cors") == 403
        visit = dict(sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="document")
        assert ask(guard, "/", **visit) == 200  # a link to the page
        assert ask(guard, "/", "POST", **visit) == 403
        assert ask(guard, "/gradio_api/file=/a/x", **visit) == 403
    for site in ("same-origin", "none"):
        assert ask(guard, "/gradio_api/info", sec_fetch_site=site) == 200


def test_two_hosts(guard):
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost"), (b"host", b"evil")]}
    assert guard._refusal(scope)[0] == 400


@pytest.mark.parametrize(
    "path",
    ["/file=https://evil.example", "/gradio_api/file=http://evil.example/a", "/file=//evil.example",
     "/file=\\\\evil.example", "/file=ftp://x", "/gradio_api/file/https://evil.example", "/proxy=https://evil.example",
     "/gradio_api/proxy=x", "/file= https://evil.example", "/file=javascript:alert(1)", "/file=HTTPS://evil.example"],
)  # fmt: skip
def test_routes_that_lead_elsewhere(guard, path):
    assert ask(guard, path) == 404


@pytest.mark.parametrize(
    "target, status",
    [
        ("https://evil.example", 403),
        ("//evil.example", 403),
        ("/\\evil.example", 403),
        ("http://127.0.0.1@evil.example", 403),
        ("javascript:x", 403),
        ("/gradio_api/", 302),
        ("http://127.0.0.1:7860/a", 302),
    ],
)
def test_redirects(guard, target, status):
    assert ask(guard, x_to=target) == status


def test_large_bodies(guard):
    assert ask(guard, method="POST", body=b"0" * 10_000) == 200
    assert ask(guard, method="POST", body=b"0" * 10_001) == 413  # without a length
    assert ask(guard, method="POST", content_length="10001") == 413
    assert ask(guard, method="POST", content_length="9" * 5000) == 413
    assert ask(guard, method="POST", content_length="-1") == 413


def test_names_of_hosts():
    assert [plain_host(name) for name in ("A.org", "a.org:80", "[::1]:80", "::1")] == ["a.org", "a.org", "::1", "::1"]
    for name in ("", "http://a.org", "a b", "*", "a.org/x"):
        with pytest.raises(ValueError, match="host: got "):
            plain_host(name)


# ---- the server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def demo(tiny_checkpoint, tmp_path):
    """Starts `ps3c demo` in a process of its own: (process, port). Temporary files are in tmp_path / "temporary"."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    temporary, running = tmp_path / "temporary", []
    temporary.mkdir()

    def start(*arguments):
        command = [sys.executable, "-m", "ps3c", "demo", "-m", tiny_checkpoint, "--port", "0", *arguments]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment(TMPDIR=str(temporary), HF_HUB_OFFLINE="1")
        )
        running.append(process)
        for line in process.stderr:
            if "127.0.0.1:" in line:
                return process, int(line.split("127.0.0.1:")[1].split("/")[0])
        raise AssertionError("no page came up")

    yield start
    for process in running:
        process.kill()
        process.wait()


def request(port, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


def upload(port, content, **headers):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    body = head + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    return request(port, "/gradio_api/upload", "POST", body, **headers)


def test_strangers_at_the_server(demo, tmp_path):
    process, port = demo("--max-pixels", "1000000")
    assert request(port, "/")[0] == 200
    for path in ("/", "/config", "/gradio_api/info"):
        assert request(port, path, Host="evil.example")[0] == 403
        assert request(port, path, Origin="http://evil.example")[0] == 403
    status, headers, _ = request(
        port, "/gradio_api/upload", "OPTIONS", Origin="http://evil.example", **{"Access-Control-Request-Method": "POST"}
    )
    assert status == 403 and not any(name.lower().startswith("access-control") for name, _ in headers)
    assert request(port, "/gradio_api/file=https://evil.example/")[0] == 404
    assert upload(port, b"0" * 1000, Origin="http://evil.example")[0] == 403
    status, _, names = upload(port, b"0" * 1000, Origin=f"http://127.0.0.1:{port}")
    assert status == 200 and os.path.getsize(json.loads(names)[0]) == 1000
    try:
        assert upload(port, b"0" * 9_000_000)[0] == 413
    except (BrokenPipeError, ConnectionResetError):  # the answer came before the body was sent
        pass
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert list((tmp_path / "temporary").glob("ps3c-demo-*")) == []


def test_a_killed_server(demo, tmp_path):
    """Its uploads are removed at the next start; those of a running server, and another user's folder, are not."""
    killed, port = demo()
    assert upload(port, b"0" * 1000)[0] == 200
    killed.kill()
    killed.wait()
    left = set((tmp_path / "temporary").glob("ps3c-demo-*"))
    assert len(left) == 1
    other = tmp_path / "temporary" / "ps3c-demo-link"
    other.symlink_to(tmp_path)
    _, port = demo("--allow-host", "proxy.example.org")
    assert request(port, "/", Host="proxy.example.org")[0] == 200
    now = set((tmp_path / "temporary").glob("ps3c-demo-*"))
    assert other in now and len(now) == 2 and not left & now
    from ps3c.page import uploads

    before = uploads.tempfile.tempdir
    try:
        uploads.tempfile.tempdir = str(tmp_path / "temporary")
        uploads.remove_stale()
    finally:
        uploads.tempfile.tempdir = before
    assert set((tmp_path / "temporary").glob("ps3c-demo-*")) == now


def test_old_folders_without_a_lock(tmp_path, monkeypatch):
    from ps3c.page import uploads

    monkeypatch.setattr(uploads.tempfile, "tempdir", str(tmp_path))
    young, old = tmp_path / "ps3c-demo-young", tmp_path / "ps3c-demo-old"
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 1000,) * 2)
    uploads.remove_stale()
    assert young.exists() and not old.exists()
