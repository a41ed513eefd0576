"""The commands that serve the viewer: ``view`` and ``compare``."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from colordim.errors import ArgumentError
from colordim.opener import open_for_user
from colordim.store import files
from colordim.store.place import is_url
from colordim.teaching import taught

if TYPE_CHECKING:
    from colordim.web.catalogue import Catalogue

__all__ = ["add_commands"]

_Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, metavar="PORT", help="Where to listen; 8765 or the next free one by default, 0 for any."
    ),
]
_Host = Annotated[
    str, typer.Option(metavar="HOST", help="Address to listen at; others than 127.0.0.1 let other machines in.")
]
_AllowHost = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Name under which the server is reached too; repeatable.")
]
_AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Address of a proxy that shows the page; repeatable."),
]
_Prefix = Annotated[str, typer.Option(metavar="PATH", help="Path under which a proxy shows the page.")]
_Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page, where there is a display.")]


def add_commands(app: typer.Typer, group: str) -> None:
    """Add ``view`` and ``compare`` to a command line."""
    views = taught(
        "view",
        ("view", "Shows all runs below this folder, also those that begin later."),
        ("view runs/lenet --port 9000", "Shows one run, at a port that is always the same."),
        ("view runs --no-browser", "On a machine without a display: prints the link, and over ssh the ssh -L line."),
        ("view --allow-origin https://hub.org --path-prefix /hub/me/8765", "Behind JupyterHub's proxy."),
    )
    compares = taught(
        "view",
        ("compare runs/slow runs/fast", "Shows two runs side by side, and their difference."),
        ("compare runs/slow runs/fast --no-browser --port 0", "Prints the link only, of any port that is free."),
    )
    app.command("view", rich_help_panel=group, cls=views)(_view)
    app.command("compare", rich_help_panel=group, cls=compares)(_compare)


def _view(
    folder: Annotated[str, typer.Argument(metavar="FOLDER_OR_RUN", help="A run, or a folder with runs in it.")] = ".",
    port: _Port = None,
    host: _Host = "127.0.0.1",
    allow_host: _AllowHost = None,
    allow_origin: _AllowOrigin = None,
    path_prefix: _Prefix = "",
    browser: _Browser = True,
) -> None:
    """Look at runs in the browser, also while they train."""
    from colordim.web.catalogue import Catalogue

    path = _folder(folder)
    single = (path / files.RUN).exists()
    _serve(
        Catalogue(path), "#run=." if single else "", port, host, allow_host, allow_origin, path_prefix, browser
    )  # fmt: skip


def _compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
    port: _Port = None,
    host: _Host = "127.0.0.1",
    allow_host: _AllowHost = None,
    allow_origin: _AllowOrigin = None,
    path_prefix: _Prefix = "",
    browser: _Browser = True,
) -> None:
    """Look at two runs side by side in the browser."""
    from colordim.web.catalogue import Catalogue

    paths = [Path(os.path.realpath(_folder(name))) for name in (first, second)]
    for path in paths:
        if not (path / files.RUN).exists():
            raise ArgumentError(
                f"{path} is not a run, as it holds no {files.RUN}: colordim ls lists runs.", page="view"
            )
    if paths[0] == paths[1]:
        raise ArgumentError(f"{first} and {second} are the same run: name two.", page="view")
    try:
        root = Path(os.path.commonpath(paths))
    except ValueError:
        raise ArgumentError(
            f"{first} and {second} are on different drives: copy one beside the other.", page="view"
        ) from None
    names = [path.relative_to(root).as_posix() for path in paths]
    fragment = f"#run={quote(names[0], safe='/')}&with={quote(names[1], safe='/')}"
    _serve(Catalogue(root, names), fragment, port, host, allow_host, allow_origin, path_prefix, browser)


def _folder(name: str) -> Path:
    if is_url(name):
        raise ArgumentError(
            f"{name} is an address, and the viewer shows folders of this machine: copy the run to it.", page="view"
        )
    path = Path(name)
    if not path.exists():
        raise ArgumentError(f"there is no folder {name}: check the path.", page="view")
    if not path.is_dir():
        raise ArgumentError(f"{name} is a file: give the folder of a run, or one with runs in it.", page="view")
    return path


def _serve(
    catalogue: Catalogue,
    fragment: str,
    port: int | None,
    host: str,
    allow_host: list[str] | None,
    allow_origin: list[str] | None,
    prefix: str,
    browser: bool,
) -> None:
    from colordim.web.security import Access
    from colordim.web.server import Viewer, listen, serve

    local = host in ("127.0.0.1", "localhost", "::1")
    name = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):  # every address, which is no name
        name = socket.gethostname()
    listening = listen(host, port)
    number = listening.getsockname()[1]
    try:
        access = Access(
            number, (*(allow_host or ()), *(() if local else (f"{name}:{number}",))), tuple(allow_origin or ()),
            prefix.rstrip("/"),
        )  # fmt: skip
    except ArgumentError:
        listening.close()
        raise
    if not local:
        _say(f"Everybody who reaches {host} and has the link can look; it goes over the network unencrypted.")
    query = f"?token={access.token}{fragment}"
    link = f"http://{name}:{number}{access.prefix}/{query}"
    _say(f"Serving {catalogue.root} at {link}")
    for origin in access.origins:
        _say(f"Through the proxy: {origin}{access.prefix}/{query}")
    if os.environ.get("SSH_CONNECTION"):
        if local:
            _say(f"From home: ssh -L {number}:127.0.0.1:{number} {_login()}, then open the link there.")
    elif browser:
        open_for_user(link)
    far = bool(os.environ.get("SSH_CONNECTION") or not local or access.origins or access.prefix)
    serve(Viewer(catalogue, access, pack=far), listening)


def _login() -> str:
    """Return ``user@host`` of this machine, as ssh would take it at home."""
    try:
        user = getpass.getuser() + "@"
    except (OSError, KeyError):  # a user without a name, as containers have
        user = ""
    name = socket.getfqdn()
    if name.startswith("localhost"):  # where this machine does not know its name: the address that was reached
        name = (os.environ.get("SSH_CONNECTION", "").split() + [name] * 3)[2]
    return user + name


def _say(sentence: str) -> None:
    # At once, also into a pipe: whoever waits for the link reads it before the server ends.
    typer.echo(sentence)
