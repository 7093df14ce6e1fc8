"""What pages cost: `python -m benchmarks.pages`, after benchmarks.million for the unit page.

A layer of 2,048 units (requests and bytes of each kind of tiles, sorting as a reader sees it in Chromium), the unit
page of the synthetic atlases, and the patches nearest to a box. Servers are processes of their own, on two cores.
Optimised inputs and projections are noise here: nothing compresses worse. The box search runs on a small atlas;
`benchmarks.patches` times the index alone up to a million vectors.
"""

import argparse
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, Request, Response, sync_playwright

from benchmarks.pictures import write_pictures
from benchmarks.questions import ask_all, percentiles, random_unit, served
from benchmarks.report import print_table, save
from unitscope_pipelines.derived.visuals import NewPicture, write_visual
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.answers.visuals import VisualKey, VisualKind
from unitscope_schemas.geometry import Location
from unitscope_services.pages.layer import LayerAddress
from unitscope_services.queries.session import Session

UNITS, LAYER, NOISE_PX = 2_048, "layer4.2", 64
KINDS = ("patch", "optimised", "projection")
SORTS = ("-maximum", "-mean", "-std", "positive_share", "channel")
MOST_REQUESTS, MOST_MIB, SORT_MS, UNIT_MS, BOX_MS = 9, 3.0, 300.0, 150.0, 500.0

_LOOK_EVERY_MS = 100
_SORTED = """async (address) => {
    const link = [...document.querySelectorAll("main a")].find((one) => one.getAttribute("href") === address);
    const started = performance.now();
    const shown = new Promise((resolve) => {
        const watched = new MutationObserver(() => document.querySelector("main tile-grid") && resolve());
        watched.observe(document.body, { childList: true });
    });
    link.click();
    await shown;
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    return performance.now() - started;
}"""
"""From the click to the second frame with the new order."""


_SEEN = """async () => {
    const more = () => document.querySelector("a.next") || scrollY + innerHeight < document.body.scrollHeight - 1;
    while (more()) {
        scrollBy(0, innerHeight);
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    }
}"""
"""Scrolls through a list to its very end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the synthetic atlases are")
    parser.add_argument("--images", default="10000", help="sizes of those whose unit pages are asked for, by commas")
    parser.add_argument("--pictures", type=int, default=256, help="of the atlases that are made here")
    parser.add_argument("--questions", type=int, default=100)
    asked = parser.parse_args()
    corpus = write_pictures(asked.folder / f"pictures-{asked.pictures}", asked.pictures)
    wide = _indexed(asked.folder / f"wide-{asked.pictures}", corpus, "torchvision:resnet50", "random:0", (LAYER,))
    _store_noise(wide)
    lite = _indexed(asked.folder / f"lite-{asked.pictures}", corpus, "efficientnet-lite:0", "default", ())
    with served(wide) as port:
        kinds = [measure_kind(port, wide.name, kind) for kind in KINDS]
        server = layer_times(port, wide.name, asked.questions)
        sorts = measure_sorts(port, wide.name)
    print_table(f"layer of {UNITS:,} units, by kind of tiles", kinds)
    rows = [
        _row("sorted layer, server", server, SORT_MS),
        _row("sorting, click to frame", sorts, SORT_MS),
        *(
            _row(f"unit page, {int(size):,} images", unit_times(asked.folder / size, asked.questions), UNIT_MS)
            for size in asked.images.split(",")
        ),
        _row("box to nearest patches", box_times(lite, asked.questions), BOX_MS),
    ]
    print_table("milliseconds", rows)
    limits = {"requests": MOST_REQUESTS, "mib": MOST_MIB}
    save("pages", {"unit": "ms", "limits": limits, "kinds": kinds, "rows": rows})


def measure_kind(port: int, atlas: str, kind: str) -> dict[str, Any]:
    """Requests and bytes of a layer's page, all of its tiles seen; raises for an answer that is no success."""
    answers: list[Response] = []
    begun: list[Request] = []
    ended: list[Request] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("response", lambda answer: answers.append(answer))
        page.on("request", lambda request: begun.append(request))
        page.on("requestfinished", lambda request: ended.append(request))
        _open_layer(page, port, atlas, f"kind={kind}")
        page.evaluate(_SEEN)
        while len(ended) < len(begun):
            page.wait_for_timeout(_LOOK_EVERY_MS)
        sizes = [(answer.headers.get("content-type", ""), len(answer.body())) for answer in answers]
        bad = [answer.url for answer in answers if answer.status != 200]
        browser.close()
    if bad:
        raise RuntimeError(f"no success: {bad}")
    pictures = [size for media_type, size in sizes if media_type == "image/webp"]
    return {
        "kind": kind,
        "image requests": len(pictures),
        "image MiB": sum(pictures) / 2**20,
        "all MiB": sum(size for _, size in sizes) / 2**20,
        "of limit": max(len(pictures) / MOST_REQUESTS, sum(size for _, size in sizes) / 2**20 / MOST_MIB),
    }


def layer_times(port: int, atlas: str, count: int) -> list[float]:
    """Milliseconds of the layer's page in one order after the other."""
    addresses = [f"/a/{atlas}/layers/{LAYER}?sort={SORTS[number % len(SORTS)]}" for number in range(count)]
    ask_all(port, addresses[: len(SORTS)], 1)
    return ask_all(port, addresses, 1)[0]


def measure_sorts(port: int, atlas: str, rounds: int = 4) -> list[float]:
    """Milliseconds from a click on an order to the frame that shows it, with the tiles' sheets in the cache."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        _open_layer(page, port, atlas, f"sort={LayerAddress.sort}")
        links = [f"/a/{atlas}/layers/{LAYER}?sort={sort}" for _ in range(rounds) for sort in SORTS]
        times: list[float] = [page.evaluate(_SORTED, link) for link in links]
        browser.close()
    return times


def unit_times(atlas: Path, count: int) -> list[float]:
    """Milliseconds of the pages of random units, with nine patches each."""
    chance = random.Random(3)
    units = [random_unit(chance) for _ in range(count + 10)]
    addresses = [f"/a/{atlas.name}/layers/{unit.layer}/units/{unit.channel}" for unit in units]
    with served(atlas) as port:
        ask_all(port, addresses[:10], 1)
        return ask_all(port, addresses[10:], 1)[0]


def box_times(atlas: Path, count: int) -> list[float]:
    """Milliseconds of the patches nearest to random boxes of random images: read, forward, pool, search."""
    chance, opened = random.Random(4), Session(atlas).atlas
    addresses = []
    for _ in range(count + 5):
        image = opened.catalogue.rows([chance.randrange(opened.catalogue.count)])[0]
        seen = opened.placement(image).seen
        top, left = chance.randrange(seen.top, seen.bottom - 64), chance.randrange(seen.left, seen.right - 64)
        box = f"{top},{left},{top + chance.randrange(32, 65)},{left + chance.randrange(32, 65)}"
        addresses.append(f"/api/v1/atlases/{atlas.name}/images/{image.image_id}/neighbors?box={box}")
    with served(atlas) as port:
        ask_all(port, addresses[:5], 1)
        return ask_all(port, addresses[5:], 1)[0]


def _row(question: str, times: Sequence[float], limit_ms: float) -> dict[str, Any]:
    found = percentiles(list(times))
    return {"question": question, **found, "of limit (p95)": found["p95"] / limit_ms}


def _open_layer(page: Page, port: int, atlas: str, query: str) -> None:
    page.goto(f"http://127.0.0.1:{port}/a/{atlas}/layers/{LAYER}?{query}", timeout=300_000)
    page.wait_for_load_state("networkidle")


def _indexed(atlas: Path, corpus: Path, model: str, weights: str, layers: tuple[str, ...]) -> Path:
    """An atlas of the pictures, made unless it is there."""
    atlas = atlas.absolute()
    if not (atlas / layout.MANIFEST).exists():
        index(
            IndexConfig(corpus=str(corpus), atlas=str(atlas), model=model, weights=weights, layers=layers),
            lambda _: None,
        )
    return atlas


def _store_noise(atlas: Path) -> None:
    """A picture of each kind for every unit, unless they are there."""
    chance = np.random.default_rng(0)
    kinds: tuple[VisualKind, ...] = ("optimised", "projection")
    for channel in range(UNITS):
        if (atlas / layout.visuals(LAYER, channel)).exists():
            continue
        for kind in kinds:
            key = VisualKey(
                atlas_key="noise",
                kind=kind,
                layer=LAYER,
                channel=channel,
                method="noise",
                objective="unit" if kind == "optimised" else "",
                settings={},
            )
            picture = Image.fromarray(chance.integers(0, 256, (NOISE_PX, NOISE_PX, 3), np.uint8))
            write_visual(store_of(atlas), key, NewPicture(picture, 1.0, Location(0, 0)))


def chromium() -> str:
    """The path of the browser that pages are measured in."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise SystemExit("pages are measured in Chromium: install the package chromium")
    return found


if __name__ == "__main__":
    main()
