"""The manual for the browser: each page as HTML without scripts, in a style that follows light and dark."""

from __future__ import annotations

import html

from colordim import manual

__all__ = ["manual_page"]

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · colordim</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{top}static/manual.css">
</head>
<body>
<nav><a href="{top}">colordim</a> <a href="{top}manual/">all pages</a></nav>
<main>
{main}</main>
</body>
</html>
"""


def manual_page(name: str) -> bytes:
    """Return a page of the manual as a document; that of all pages for an empty name.

    Its links are relative, as a proxy may show the server under any path.

    Raises
    ------
    ArgumentError
        If there is no such page.
    """
    if not name:
        rows = "".join(f'<li><a href="{page}">{html.escape(manual.title(page))}</a></li>\n' for page in manual.names())
        return _document("The manual", f"<h1>The manual</h1>\n<ul>\n{rows}</ul>\n", "../")
    up = "../" * name.count("/")

    def link(href: str) -> str | None:
        address = manual.linked(name, href)
        return address if address is None or address.startswith(("http:", "https:")) else f"{up}{address}"

    return _document(manual.title(name), manual.as_html(name, link=link), f"../{up}")


def _document(title: str, main: str, top: str) -> bytes:
    return _PAGE.format(title=html.escape(title), main=main, top=top).encode()
