"""Where the Chromium of the tests is; as a script, what installs it where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """Return the path that COLORDIM_CHROMIUM names, else that of an installed browser, else Playwright's own."""
    for name in (os.environ.get("COLORDIM_CHROMIUM"), *NAMES):
        if name and (found := shutil.which(name)):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install() -> None:
    """Install it with the system's packages as root, or into the user's folder for Playwright."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
    else:
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
    subprocess.run(command, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


if __name__ == "__main__":
    if find() is None:
        install()
    if find() is None:
        sys.exit("The tests of the page need Chromium: install it, or name one in COLORDIM_CHROMIUM.")
