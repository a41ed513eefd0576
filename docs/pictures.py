"""Train the two networks of the demo, and make the pictures of charts.md from them: `python docs/pictures.py` (two minutes).

Those of the terminal and of the page are taken by Chromium, which `make test` installs where there is none.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from torch.nn.functional import cross_entropy

import colordim
from colordim.cli import print_run
from colordim.demo.data import Digits, load_digits
from colordim.demo.training import BAD, GOOD, Recipe

IMAGES = Path(__file__).parent / "images"
BYTES = 80_000
EPOCHS, SIZE = 8, 128


def train(recipe: Recipe, digits: Digits, folder: Path) -> colordim.Run:
    """Train as the demo does, and record every kind, and the classes of the head."""
    torch.manual_seed(7)
    torch.set_num_threads(1)
    model = recipe.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr)
    number = len(digits.train_labels)
    steps = EPOCHS * (number // SIZE)
    schedule = (  # made only then: already its constructor changes the learning rate
        torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps, cycle_momentum=False)
        if recipe.one_cycle
        else None
    )
    with colordim.record(
        model, folder=folder, name=recipe.name, kinds="all", optimizer=optimizer, facets={"head": "class"}
    ) as rec:
        for _ in range(EPOCHS):
            model.train()
            for chosen in torch.split(torch.randperm(number), SIZE)[: number // SIZE]:
                loss = cross_entropy(model(digits.train_images[chosen]), digits.train_labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                rec.log(loss=loss)
                if schedule is not None:
                    schedule.step()
            model.eval()
            with torch.no_grad():
                for images, labels in zip(
                    *(torch.split(t, 500) for t in (digits.valid_images, digits.valid_labels)), strict=True
                ):
                    rec.log(loss=cross_entropy(model(images), labels))
    return rec.run


def save(picture: Figure | bytes, name: str) -> None:
    """Write a PNG of 256 colours and at most `BYTES`; a figure is drawn with as many dots an inch as that allows."""
    for dpi in (110, 100, 90, 80):
        memory = io.BytesIO()
        if isinstance(picture, Figure):
            picture.savefig(memory, format="png", dpi=dpi)
        image = Image.open(memory if isinstance(picture, Figure) else io.BytesIO(picture)).convert("RGB")
        small = io.BytesIO()
        image.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        if len(small.getvalue()) <= BYTES:
            break
    (IMAGES / f"{name}.png").write_bytes(small.getvalue())
    print(f"{name}.png  {image.width} x {image.height}, {len(small.getvalue()) / 1000:.0f} kB")  # noqa: T201


def charts(good: colordim.Run, bad: colordim.Run) -> None:
    """Draw what Matplotlib draws."""
    save(bad.colorful(["conv1", "conv4"], window="symlog", rows=1, cols=2, figsize=(9.5, 3.4)), "chart-colorful")
    save(good.colorful("head", profiles=True, mean=True, figsize=(8, 4.2)), "chart-profiles")
    save(good.colorful("head", by="class", figsize=(8, 6.2)), "chart-by-class")
    save(good.twin_peaks(figsize=(7.5, 4)), "chart-twin-peaks")
    save(bad.dead(["relu1", "relu2", "relu3", "relu4"], rows=2, cols=2, figsize=(11, 5)), "chart-dead")
    save(bad.profile("conv*", figsize=(8, 4.4)), "chart-profile")
    save(good.updates(figsize=(8, 4)), "chart-updates")
    save(good.scalars(["loss", "lr"], figsize=(8, 2.8)), "chart-scalars")


def pages(runs: Path, bad: colordim.Run) -> None:
    """Let Chromium take the pictures of a terminal and of the page."""
    from playwright.sync_api import Page, sync_playwright

    console = Console(
        record=True, width=96, height=30, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    print_run(bad, bad.select(["conv4"]), console, "train", "symlog", "share", 96, 22)
    # Rich's own window, without the fonts that it would load from a network.
    terminal = re.sub(
        r"@font-face \{.*?\}", "", console.export_svg(title="colordim show runs/bad --terminal"), flags=re.S
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "colordim", "compare", runs / "bad", runs / "good", "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = server.stdout.readline() if server.stdout else ""
        link = line.split(" at ")[1].strip()
        with sync_playwright() as playwright:
            found = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
            browser = playwright.chromium.launch(executable_path=found)
            page: Page = browser.new_page(viewport={"width": 1200, "height": 760})
            page.set_content(f'<body style="margin:0">{terminal}</body>')
            save(page.locator("svg").first.screenshot(), "chart-terminal")
            page.goto(link)
            page.wait_for_timeout(4000)
            save(page.screenshot(), "chart-compare")
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        digits, runs = load_digits(), Path(sys.argv[1] if len(sys.argv) > 1 else folder)
        taken = [
            colordim.open(runs / recipe.name)
            if (runs / recipe.name).exists()
            else train(recipe, digits, runs / recipe.name)
            for recipe in (GOOD, BAD)
        ]
        charts(*taken)
        pages(runs, taken[1])
