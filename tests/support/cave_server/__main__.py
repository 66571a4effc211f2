# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in CAVE server as a command: `python -m cave_server --help`, with the folder tests/ on PYTHONPATH."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from pathlib import Path

from . import faults
from .certificates import CERTIFICATES, TLS_VERSIONS, server_context
from .process import serve


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    listed = "\n".join(
        f"  {kind}: {text} {list(parameters) or ''}" for kind, (text, parameters) in faults.KINDS.items()
    )
    options = argparse.ArgumentParser(
        prog="python -m cave_server",
        description="A stand-in CAVE server (auth and info service) for tests. When it is ready it prints one line of\n"
        "JSON with its url, the certificate bundle (ca) and the address and key of its control API, which the Python\n"
        "class cave_server.CaveServer drives. It ends at SIGTERM.",
        epilog=f"faults that a test can switch on, with their parameters:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--address", default="127.0.0.1", help="address to listen at (%(default)s)")
    options.add_argument("--port", type=int, default=0, help="port; 0: any that is free (%(default)s)")
    options.add_argument("--socket", type=Path, help="listen at this Unix socket, too, for who has no network")
    options.add_argument("--tls", action="store_true", help="HTTPS, with a throw-away certificate authority")
    options.add_argument("--certificate", choices=CERTIFICATES, default="good", help="which one is shown (%(default)s)")
    options.add_argument("--tls-version", choices=list(TLS_VERSIONS), help="speak this version alone")
    options.add_argument("--name", action="append", default=[], help="further host name in the certificate; repeatable")
    options.add_argument("--ca-file", type=Path, help="where to write the bundle (a temporary file)")
    options.add_argument(
        "--cache-ttl", type=float, default=300, help="seconds for which the info service remembers (%(default)s)"
    )
    options.add_argument("--legacy", action="store_true", help="making a token kills the person's old ones")
    options.add_argument("--latency", type=float, default=0, help="seconds that every answer takes (%(default)s)")
    options.add_argument(
        "--auth-down-delay",
        type=float,
        default=3,
        help="seconds until the info service gives up on an auth server that is down (%(default)s)",
    )
    options.add_argument("--ready-file", type=Path, help="file that gets the ready line, readable by you alone")
    options.add_argument("--die-with", choices=["stdin"], help="end when standard input does, so with the parent")
    return options


def main() -> None:
    """Serve."""
    arguments = parser().parse_args()
    with contextlib.ExitStack() as stack:
        context = None
        bundle = None
        if arguments.tls:
            bundle = arguments.ca_file
            if bundle is None:
                bundle = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cave-server-"))) / "ca.pem"
                bundle.parent.chmod(0o755)  # other users' clients read it too
            names = [arguments.address, "localhost", *arguments.name]
            context = server_context(arguments.certificate, names, bundle, arguments.tls_version)
        asyncio.run(
            serve(
                address=arguments.address,
                port=arguments.port,
                socket=arguments.socket,
                context=context,
                options={
                    "cache_ttl": arguments.cache_ttl,
                    "legacy": arguments.legacy,
                    "latency": arguments.latency,
                    "auth_down_delay": arguments.auth_down_delay,
                },
                ready={"ca": str(bundle) if bundle else None},
                ready_file=arguments.ready_file,
                die_with_stdin=arguments.die_with == "stdin",
            )
        )


if __name__ == "__main__":
    main()
