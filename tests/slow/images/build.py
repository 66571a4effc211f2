# Copyright (c) 2026 connectomics.cave contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make container images of the root file systems, for machines that cannot pull any.

    python tests/slow/images/build.py bookworm trixie bullseye

The images are `localhost/connectomics-cave/debian:bookworm` and so on; one that is there already is not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[depth]) for depth in (1, 2)]

from images import rootfs  # noqa: E402 (the folders come first)

PREFIX = "localhost/connectomics-cave/"
CONTAINERS_CONF = Path(__file__).with_name("containers.conf")
LABEL = "connectomics.cave.rootfs"


def podman(*arguments: str) -> list[str]:
    """Return a command of podman with the settings of this folder."""
    return ["env", f"CONTAINERS_CONF={CONTAINERS_CONF}", "podman", *arguments]


def build(release: str) -> str:
    """Make the image of a Debian release unless it is there; return its name.

    Raises:
        images.rootfs.RootfsError: the root file system cannot be built, or podman failed.
    """
    root = rootfs.provide(release)
    image = f"{PREFIX}debian:{release}"
    if _label(image) == root.path.name:
        return image
    changes = ['CMD ["/lib/systemd/systemd"]', "STOPSIGNAL SIGRTMIN+3", f"LABEL {LABEL}={root.path.name}"]
    options = [word for change in changes for word in ("--change", change)]
    with subprocess.Popen(["tar", "-C", str(root.path), "-c", "."], stdout=subprocess.PIPE) as tar:
        load = subprocess.run(
            podman("import", *options, "-", image), stdin=tar.stdout, capture_output=True, text=True, check=False
        )
    if load.returncode != 0 or tar.returncode != 0:
        raise rootfs.RootfsError(f"podman import {image}: {load.stderr.strip()}")
    return image


def _label(image: str) -> str:
    """Return which root file system an image was made of; an empty string when there is no such image."""
    command = podman("image", "inspect", "--format", f'{{{{index .Labels "{LABEL}"}}}}', image)
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Build the releases that are named; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("releases", nargs="+", metavar="RELEASE", help=", ".join(rootfs.RELEASES))
    for release in parser.parse_args().releases:
        start = time.monotonic()
        try:
            image = build(release)
        except (rootfs.RootfsError, OSError) as error:
            print(f"build.py: {error}", file=sys.stderr)
            return 1
        print(f"{image} ({time.monotonic() - start:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
