"""The page's modules as one text."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from colordim.errors import FormatError
from colordim.web.bundle import STATIC, bundle


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text)
    return folder


@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.glob("*.js")))
def test_every_module_can_be_bundled(name: str) -> None:
    bundle(f'import {{  }} from "./{name}";\n')


def test_it_runs(page: Page, tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        base='let made = 0;\n/** @typedef {import("./base.js").X} X */\nexport const ONE = 1;\n'
        "export class Two {\n  get value() {\n    return 2;\n  }\n}\nexport function count() {\n  return ++made;\n}\n",
        left='import { ONE, count } from "./base.js";\nconst made = ONE;\nexport function left() {\n  return made + count();\n}\n',
        right='import {\n  count,\n  Two,\n} from "./base.js";\nconst made = new Two();\n'
        "export async function right() {\n  return made.value + count();\n}\n",
    )
    text = bundle(
        'import { left } from "./left.js";\nimport { right } from "./right.js";\n'
        "const first = left();\nright().then((second) => (document.title = `${first} ${second}`));\n",
        folder,
    )
    page.set_content(f'<script type="module">{text}</script>')
    page.wait_for_function("document.title === '2 4'")  # 1 + 1, and 2 + 2, as base is made once


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"the page imports gone\.js, which is not in"):
        bundle('import { a } from "./gone.js";\n', tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("export default 1;\n", "export default 1"),
        ('import * as all from "./b.js";\n', "import [*] as all"),
        ('import { b as c } from "./b.js";\n', "'b as c'"),
        ('import { c } from "./b.js";\n', r"a.js imports c of b\.js, which does not export it"),
        ('import all from "./b.js";\n', "import all"),
        ('import { b } from "https://example.org/b.js";\n', "example.org"),
        ('import { a } from "./a.js";\n', "imports itself, by way of a.js"),
        ("export let a = 1;\n", "export let a"),
        ("export { a };\n", "export { a }"),
        ('const b = import("./b.js");\n', r"import\("),
        ("const url = import.meta.url;\n", "import.meta"),
        ("await start();\n", "await start"),
    ],
)
def test_what_it_does_not_understand_is_refused(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, a=text, b="export const b = 1;\n")
    with pytest.raises(FormatError, match=said) as caught:
        bundle('import {  } from "./a.js";\n', tmp_path)
    assert "a.js" in str(caught.value)


def test_a_ring_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='import { b } from "./b.js";\nexport const a = 1;\n',
        b='import { a } from "./a.js";\nexport const b = 1;\n',
    )
    with pytest.raises(FormatError, match=r"a\.js imports itself, by way of a\.js and b\.js"):
        bundle('import { a } from "./a.js";\n', tmp_path)
