"""Opening a file or a link where there is a display, and nothing at all where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["open_for_user"]


def open_for_user(target: Path | str) -> bool:
    """Show a file or a link in the program that the desktop has for it; return whether one was asked to.

    Never fails, waits or prints: without a display, over ssh and in continuous integration it does nothing.
    """
    if os.environ.get("CI"):
        return False
    try:
        if sys.platform == "win32":
            os.startfile(target)
            return True
        if sys.platform == "darwin":
            program = None if os.environ.get("SSH_CONNECTION") else shutil.which("open")
        else:
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            program = shutil.which("xdg-open") if display else None
        if program is None:
            return False
        quiet = subprocess.DEVNULL
        subprocess.Popen([program, str(target)], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError:
        return False
    return True
