"""The page's modules as one: for places that have no address to import from, a report and a notebook.

Each module becomes a function that is called once and returns what it exports, so that names meet nowhere. Statements are
found by their lines, as the modules are formatted: what is not understood is refused, never left as it is.
"""

from __future__ import annotations

import re
from pathlib import Path

from colordim.errors import FormatError

__all__ = ["STATIC", "bundle"]

#: Folder of the page's modules and its style.
STATIC = Path(__file__).with_name("static")

_IMPORT = re.compile(r"^import\s*\{([^{}]*)\}\s*from\s*\"\./([\w-]+\.js)\";?[ \t]*\n", re.MULTILINE)
_EXPORT = re.compile(r"^export\s+((?:async\s+)?function\*?|class|const)\s+([A-Za-z_$][\w$]*)", re.MULTILINE)
#: What is left of the two when those that are understood are gone, and what no function can hold.
_LEFT = re.compile(r"^(?:\s*(?:import|export)|await)\b.*|\bimport\s*[(.].*", re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/|^[ \t]*//[^\n]*", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_$][\w$]*")


def bundle(main: str, folder: Path | None = None) -> str:
    """Return one module without imports.

    Parameters
    ----------
    main : str
        Text of a module: named imports from modules of the folder first, then what comes after these; its exports stay.
    folder : Path, optional
        :data:`STATIC` by default.

    Raises
    ------
    FormatError
        If a module is missing, is imported by one that it imports, does not export what is imported of it, or has
        another statement of import or export than ``import {a, b} from "./x.js"`` and
        ``export function|async function|class|const name`` at the beginning of a line.
    """
    folder = folder or STATIC
    exports: dict[str, set[str]] = {}
    parts: list[str] = []

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise FormatError(
                f"{name} imports itself, by way of {' and '.join(path)}: put what both need into a third."
            )
        if name in exports:
            return
        file = folder / name
        if not file.is_file():
            raise FormatError(f"{path[-1] if path else 'the page'} imports {name}, which is not in {folder}.")
        text = resolved(name, file.read_text(encoding="utf-8"), (*path, name))
        exports[name] = {found[2] for found in _EXPORT.finditer(text)}
        body = _EXPORT.sub(r"\1 \2", text)
        _refuse(name, body)
        parts.append(
            f"const {_variable(name)} = (() => {{\n{body.rstrip()}\nreturn {{ {', '.join(sorted(exports[name]))} }};\n}})();\n"
        )

    def resolved(name: str, text: str, path: tuple[str, ...]) -> str:
        def replaced(found: re.Match[str]) -> str:
            names = [each.strip() for each in found[1].split(",") if each.strip()]
            if unusual := [each for each in names if not _NAME.fullmatch(each)]:
                raise FormatError(f"{name} imports {unusual[0]!r}: the bundle takes names as they are.")
            add(found[2], path)
            if missing := [each for each in names if each not in exports[found[2]]]:
                raise FormatError(f"{name} imports {missing[0]} of {found[2]}, which does not export it.")
            return f"const {{ {', '.join(names)} }} = {_variable(found[2])};\n"

        return _IMPORT.sub(replaced, text)

    end = resolved("the page", main, ())
    _refuse("the page", _EXPORT.sub("", end).replace("export default", ""))
    return "".join([*parts, end])


def _refuse(name: str, text: str) -> None:
    if left := _LEFT.search(_COMMENT.sub("", text)):
        raise FormatError(f"{name} has {left[0].strip()[:60]!r}, which the bundle does not understand.")


def _variable(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.removesuffix(".js"))
