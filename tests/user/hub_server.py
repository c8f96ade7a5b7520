"""A small Hugging Face hub for tests: the requests that huggingface_hub makes to find and download a model."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REFUSALS = {
    "RepoNotFound": (404, "Repository not found"),
    "RevisionNotFound": (404, "Invalid rev id"),
    "EntryNotFound": (404, "Entry not found"),
    "GatedRepo": (403, "Access to this model is restricted"),
    "private": (401, "Invalid username or password."),
}


class Hub:
    """Serves `models`: {name: {revision: {file: bytes}}} on a free port of this machine, as long as the block lasts.

    cut: names of models whose first download of weights ends in the middle. gated: models whose files need an access.
    private: models that need a login. slow: models about which a question is answered after 20 seconds.
    stall: models whose weights stop in the middle; `stalls` is set then.
    GET /_requests returns the requests since the last GET /_requests. GET /_stop: connections are refused from then on.
    """

    def __init__(self, models, cut=(), gated=(), private=(), slow=(), stall=()):
        self.models, self.cut, self.gated, self.private, self.slow = models, set(cut), gated, private, slow
        self.stall = stall
        self.requests: list[str] = []
        self.end, self.stalls = threading.Event(), threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.end.set()
        self.server.shutdown()
        self.server.server_close()


def commit(name, revision):
    """The commit that a revision of a model has here."""
    return hashlib.sha1(f"{name} {revision}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        if self.path == "/_requests":
            seen, self.hub.requests = self.hub.requests, []
            self._send(json.dumps(seen).encode())
        elif self.path == "/_stop":
            self._send(b"{}")
            threading.Thread(target=self.hub.stop).start()
        else:
            self._answer()

    def _answer(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        offset = f" {self.headers['Range']}" if self.headers["Range"] else ""
        self.hub.requests.append(f"{self.command} {'/'.join(parts)}{offset}")
        if parts[:2] == ["api", "models"]:
            name, question, revision = "/".join(parts[2:4]), *(parts[4:6] or ["revision", "main"])
            self._tell(name, question, revision)
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse("RepoNotFound")

    def _tell(self, name, question, revision):
        """Facts of a model: its commit and its files."""
        if name in self.hub.slow:
            self.hub.end.wait(20)
        files = self._files(name, revision)
        if files is None:
            return
        if question == "tree":
            facts = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
        else:
            sha = revision if len(revision) == 40 else commit(name, revision)
            siblings = [{"rfilename": path} for path in files]
            facts = {"_id": "0", "id": name, "modelId": name, "sha": sha, "private": False, "siblings": siblings}
            facts |= {"tags": [], "downloads": 0, "likes": 0}
        self._send(json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def _file(self, name, revision, path):
        files = self._files(name, revision)
        if files is None:
            return
        if name in self.hub.gated:
            return self._refuse("GatedRepo")
        headers = {"X-Repo-Commit": revision if len(revision) == 40 else commit(name, revision)}
        if path not in files:  # with the commit, a client notes that it has no such file
            return self._refuse("EntryNotFound", headers)
        content, first = files[path], 0
        headers |= {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if self.headers["Range"]:
            first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cut = self.command == "GET" and path == "model.safetensors" and name in self.hub.cut
        if cut:
            self.hub.cut.remove(name)
        stall = self.command == "GET" and path == "model.safetensors" and name in self.hub.stall
        self._send(content[first:], headers, 206 if first else 200, sent=len(content) // 2 if cut or stall else None)
        if stall:
            self.hub.stalls.set()
            self.hub.end.wait(60)

    def _files(self, name, revision):
        """The files of a revision; None: the request was refused."""
        if name in self.hub.private and self.headers["Authorization"] != "Bearer good":
            return self._refuse("private")
        if name not in self.hub.models:
            return self._refuse("RepoNotFound")
        for known, files in self.hub.models[name].items():
            if revision in (known, commit(name, known)):
                return files
        return self._refuse("RevisionNotFound")

    def _refuse(self, code, headers=()):
        status, message = REFUSALS[code]
        headers = {**dict(headers), "X-Error-Message": message}
        if code != "private":
            headers["X-Error-Code"] = code
        self._send(json.dumps({"error": message}).encode(), headers, status)

    def _send(self, content, headers=(), status=200, sent=None):
        """Answers. sent: number of bytes after which the connection is cut."""
        self.send_response(status)
        for header, value in dict(headers).items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content)))
        with contextlib.suppress(OSError):  # the client has gone
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content if sent is None else content[:sent])
