# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server as a process: listening, telling that it is ready, and going away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from .app import Site, application
from .control import Control, control_application
from .services import with_services
from .world import public_world

BACKLOG = 2048
"""A whole fleet may knock in the same moment."""
PATIENCE = 0.05
"""Seconds that connections get to end by themselves; the framework takes 0 for ever."""


class Door:
    """The served address, which can be closed and opened again."""

    def __init__(self, runner: web.AppRunner, address: str, port: int, context: ssl.SSLContext | None) -> None:
        self._runner = runner
        self._address = address
        self._context = context
        self._site: web.TCPSite | None = None
        self.port = port

    async def open(self, on: bool) -> None:
        """Open or close it; closing ends the connections that are there."""
        if on and self._site is None:
            site = web.TCPSite(
                self._runner, self._address, self.port, ssl_context=self._context, backlog=BACKLOG, reuse_address=True
            )
            await site.start()
            self._site = site
            self.port = self._runner.addresses[0][1]
        elif not on and self._site is not None:
            await self._site.stop()
            self._site = None
            if self._runner.server:
                await self._runner.server.shutdown(PATIENCE)


async def serve(
    *,
    address: str,
    port: int,
    context: ssl.SSLContext | None,
    options: Mapping[str, Any],
    ready: Mapping[str, Any],
    ready_file: Path | None,
    die_with_stdin: bool,
    socket: Path | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT, or, with `die_with_stdin`, the end of standard input.

    Args:
        context: for TLS.
        options: of the world.
        ready: what the ready line tells besides the addresses.
        ready_file: gets the ready line as well, whole, readable by its owner alone.
        socket: path of a Unix socket to listen at, too.
    """
    # Broken requests are what this server is for; only its own errors are worth a line.
    logging.getLogger("aiohttp.server").setLevel(logging.ERROR)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if die_with_stdin:
        _stop_at_end_of_stdin(loop, stop)

    site = Site(public_world(**options))
    runner = web.AppRunner(with_services(application(site)), access_log=None, shutdown_timeout=PATIENCE)
    await runner.setup()
    door = Door(runner, address, port, context)
    key = secrets.token_urlsafe()
    control = web.AppRunner(
        control_application(Control(site, options, door.open), key), access_log=None, shutdown_timeout=PATIENCE
    )
    await control.setup()
    try:
        await door.open(True)
        if socket:
            await web.UnixSite(runner, socket, ssl_context=context).start()
        control_site = web.TCPSite(control, "127.0.0.1", 0)
        await control_site.start()
        host = f"[{address}]" if ":" in address else address
        site.url = f"{'https' if context else 'http'}://{host}:{door.port}"
        site.world.serve(site.url)
        line = json.dumps(
            {
                "url": site.url,
                "control": f"http://127.0.0.1:{control.addresses[0][1]}/",
                "key": key,
                "pid": os.getpid(),
                **ready,
            }
        )
        if ready_file:
            _write_whole(ready_file, line + "\n")
        print(line, flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
        await control.cleanup()


def _stop_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    # A regular file or /dev/null cannot be watched: it is at its end from the start, and says nothing of the parent.
    with contextlib.suppress(PermissionError):
        loop.add_reader(sys.stdin.fileno(), readable)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    temporary.rename(path)
