"""A worker that answers 200 on any path, and misbehaves as its arguments (``name=value``) say.

``ready_after_s``: answers only then. ``gate``: it answers once that file is there. ``hang``: it listens and never
answers. ``ill``: once that file is there it answers 503, or nothing where the file says ``silent``. ``drain_s``: how
long it goes on after SIGTERM. ``ignore_term``: it never ends. ``die_after_s``: it ends by itself, with status 3.
``child``, ``daemon`` and ``stranger``: it has a child that sleeps on when the worker ends, in its session, in one of
its own, or there without its environment.
``spam``: it prints that many lines a second. ``show_env``: it prints its environment.
"""

# ruff: noqa: T201, PTH110, PTH123, SIM115

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time


def main(arguments: dict[str, str]) -> None:
    """Serve until told to end."""

    def number(name: str, otherwise: float) -> float:
        return float(arguments.get(name, otherwise))

    born_s, ends_s = time.monotonic(), number("die_after_s", float("inf")) + time.monotonic()
    ready_s = born_s + number("ready_after_s", 0)
    asked = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "ignore_term" in arguments else lambda *_: asked.append(1))
    if "show_env" in arguments:
        print("environment", json.dumps(dict(os.environ)), flush=True)
    print("arguments", json.dumps(sys.argv[1:]), flush=True)
    sleeper = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    if "child" in arguments:
        subprocess.Popen(sleeper)
    if "daemon" in arguments:
        subprocess.Popen(sleeper, start_new_session=True)
    if "stranger" in arguments:
        print("stranger", subprocess.Popen(sleeper, start_new_session=True, env={}).pid, flush=True)
    server: socket.socket | None = None
    silent: list[socket.socket] = []
    every_s = 1 / number("spam", 20)
    while (now := time.monotonic()) < ends_s:
        if asked:
            asked.clear()
            print("draining", flush=True)
            ends_s = now + number("drain_s", 0)
        if "spam" in arguments:
            print("x" * 100, flush=True)
        ready = os.path.exists(arguments["gate"]) if "gate" in arguments else now >= ready_s
        if server is None and (ready or "hang" in arguments):
            server = socket.create_server(("127.0.0.1", int(arguments.get("port", 0))))
        if server is None or "hang" in arguments:
            time.sleep(0.02)
        elif select.select([server], [], [], every_s)[0]:
            connection, _ = server.accept()
            ill = "ill" in arguments and os.path.exists(arguments["ill"])
            if ill and open(arguments["ill"]).read() == "silent":
                silent.append(connection)
                continue
            with connection:
                connection.recv(4096)
                status = b"503 Unavailable" if ill else b"200 OK"
                connection.sendall(b"HTTP/1.0 " + status + b"\r\nContent-Length: 0\r\n\r\n")
    print("bye", flush=True)
    sys.exit(3 if "die_after_s" in arguments else 0)


if __name__ == "__main__":
    main(dict(argument.partition("=")[::2] for argument in sys.argv[1:]))
