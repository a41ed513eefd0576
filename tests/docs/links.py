"""Whether all links of a built site hold; as a script, `python tests/docs/links.py build/site`."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a page loads by itself, and not when somebody clicks.
LOADS = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("source", "srcset")}
#: Relations of <link> that are no more than words about the page.
WORDS = {"canonical", "license", "author"}


class Page(HTMLParser):
    """The anchors of a page, and the addresses that it names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []  # address, and whether it is loaded
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        for key in ("href", "src", "srcset"):
            value = given.get(key)
            if value is not None and tag != "base":
                style = tag == "link" and given.get("rel") not in WORDS
                self.links.append((value, style or (tag, key) in LOADS))


def broken(site: Path) -> list[str]:
    """Return a sentence for each link into the site that leads nowhere, and for each thing that would be fetched from elsewhere."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    sentences = [] if pages else [f"{site} holds no page."]
    for path, page in pages.items():
        for address, loaded in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if loaded and parts.scheme != "data":
                    sentences.append(f"{path.relative_to(site)} loads {address} from elsewhere.")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_relative_to(site) or not target.is_file():
                sentences.append(f"{path.relative_to(site)} links to {address}, which is not there.")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                sentences.append(f"{path.relative_to(site)} links to {address}, which has no such anchor.")
    return sentences


if __name__ == "__main__":
    found = broken(Path(sys.argv[1]))
    if found:
        sys.exit("\n".join(found))
