"""Headless Chromium, spoken to in its DevTools protocol over two pipes: no driver to install, nothing left running."""

import fcntl
import json
import os
import select
import shutil
import signal
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """Headless Chromium, spoken to in its DevTools protocol over two pipes."""

    def __init__(self, profile: Path) -> None:
        # above 9, so that neither is one of the numbers that the child's ends get
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for end in pair]
        self.pid = os.posix_spawn(
            str(CHROMIUM),
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
            + ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
            + ["--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            dict(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[3], 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        os.close(ends[0])
        os.close(ends[3])
        self.to, self.back = ends[1], ends[2]
        self.count, self.rest = 0, b""
        self.events: list[dict[str, Any]] = []
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], 60)
            assert ready, "Chromium did not answer within a minute"
            self.rest += os.read(self.back, 1 << 16)
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=address)
        self.run("new Promise(r => document.readyState === 'complete' ? r() : addEventListener('load', r))")

    def complaints(self) -> list[dict[str, Any]]:
        """Errors of the console, exceptions, what the page's policy blocked, and requests to anywhere."""
        wrong = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if (
                method == "Runtime.exceptionThrown"
                or (method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"))
                or (method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"))
                or (
                    method == "Network.requestWillBeSent" and params["request"]["url"].startswith(("http", "ws", "ftp"))
                )
            ):
                wrong.append(event)
        return wrong

    def close(self) -> None:
        os.close(self.to)
        os.close(self.back)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
