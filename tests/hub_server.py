"""A hub on 127.0.0.1: what `huggingface_hub` asks of huggingface.co, answered from folders."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Repository:
    commits: dict[str, Path]
    """Full commit → folder of its files."""
    branches: dict[str, str]
    refuses: tuple[int, str] | None = None
    """Status and error code of every answer about files."""


@dataclass
class Hub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, headers, body = hub.answer(self.path.split("?")[0])
                hub.requests.append(f"{self.command} {self.path} {status}")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for one path."""
        parts = path.strip("/").split("/")
        about = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if about else parts
        repository = self.repositories.get(f"{owner}/{name}")
        if repository is None:  # the real one says 401 to strangers, lest they learn which private names exist
            return refusal(401, "RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return refusal(404, "RevisionNotFound")
        folder = repository.commits[commit]
        files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
        if about and rest[:1] in ([], ["revision"]):
            siblings = [{"rfilename": file} for file in files]
            return document({"id": f"{owner}/{name}", "sha": commit, "private": False, "siblings": siblings})
        if repository.refuses:
            return refusal(*repository.refuses)
        if about and rest[0] == "tree":
            below = "/".join(rest[2:])
            listed = [
                {"type": "file", "path": file, "size": at.stat().st_size, "oid": etag(at)}
                for file, at in files.items()
                if file.startswith(below)
            ]
            return document(listed) if listed else refusal(404, "EntryNotFound")
        if rest[:1] == ["resolve"]:
            file = files.get("/".join(rest[2:]))
            if file is None:
                return refusal(404, "EntryNotFound", {"X-Repo-Commit": commit})
            return 200, {"ETag": f'"{etag(file)}"', "X-Repo-Commit": commit}, file.read_bytes()
        return refusal(404, "EntryNotFound")


def etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def document(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def refusal(status: int, code: str, headers: dict[str, str] = {}) -> tuple[int, dict[str, str], bytes]:
    return status, {"X-Error-Code": code, "X-Error-Message": code, **headers}, b""
