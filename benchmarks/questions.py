"""What questions cost at the store and through HTTP: `python -m benchmarks.questions`, after benchmarks.million.

Server and clients are processes of their own. A sample of the answers is compared with a full scan in SQL. All is asked
in rounds that take turns, and every figure is the median over rounds, as other work on the machine comes and goes.
"""

import argparse
import http.client
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.million import LAYER_UNITS, layers
from benchmarks.report import print_table, save
from benchmarks.synthetic_images import LABELS, RARE_LABEL
from benchmarks.truth import compare_with_scan
from unitscope_schemas.questions import ExplainQuestion, HistogramQuestion, LabelsQuestion, TopQuestion, UnitsQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.queries import exemplars, labels, units
from unitscope_services.queries.session import Session, Subject
from unitscope_services.web.app_state import collect_seldom

Ask = Callable[[], object]
Figures = dict[str, dict[str, float]]

FREQUENT_LABEL, FEW_LABEL = "label000", f"label{LABELS - 10}"
OF_TWO = ", two server processes"
TARGETS_MS = {
    **{f"store: top {k}": ("p99", 5) for k in (9, 100, 1000)},
    **{f"http: top {k}": ("p99", 15) for k in (9, 100, 1000)},
    **{f"store: label, {size} images": ("p95", 30) for size in ("many", "few", "twelve")},
    **{f"store: {what}": ("p95", 5) for what in ("histogram", "quantiles")},
    "store: explain an image": ("p95", 50),
}


def store_questions(asked: Session, chance: random.Random) -> dict[str, Callable[[], Ask]]:
    """By name, what makes one random question."""
    atlas = asked.atlas

    def patches(**query: Any) -> Callable[[], Ask]:
        def make() -> Ask:
            unit = random_unit(chance)
            return lambda: exemplars.patches(atlas, unit, TopQuestion(**query))

        return make

    def about(answer: Callable[[UnitId], object]) -> Callable[[], Ask]:
        def make() -> Ask:
            unit = random_unit(chance)
            return lambda: answer(unit)

        return make

    def explain() -> Ask:
        image = atlas.catalogue.rows([chance.randrange(atlas.manifest.corpus.image_count)])[0]
        return lambda: asked.explain(Subject(image, None), ExplainQuestion())

    return {
        **{f"top {k}": patches(k=k) for k in (9, 100, 1000)},
        "page at half depth": patches(quantile=(0.0, 0.5)),
        "percentile band": patches(quantile=(0.9, 0.95)),
        "label, many images": patches(label=FREQUENT_LABEL),
        "label, few images": patches(label=FEW_LABEL),
        "label, twelve images": patches(label=RARE_LABEL),
        "histogram": about(lambda unit: units.histogram(atlas, unit, HistogramQuestion())),
        "quantiles": about(lambda unit: units.histogram(atlas, unit, HistogramQuestion()).quantiles),
        "labels": about(lambda unit: labels.labels(atlas, unit, LabelsQuestion())),
        "unit list": about(lambda unit: units.unit_page(atlas, unit.layer, UnitsQuestion(k=100))),
        "explain an image": explain,
    }


def http_questions(asked: Session, chance: random.Random) -> dict[str, Callable[[], str]]:
    """By name, what makes the address of one random question."""
    name = asked.atlas.name

    def about(path: str) -> Callable[[], str]:
        def make() -> str:
            unit = random_unit(chance)
            return f"/api/v1/atlases/{name}/layers/{unit.layer}/units/{unit.channel}/{path}"

        return make

    def explain() -> str:
        image = asked.atlas.catalogue.rows([chance.randrange(asked.atlas.manifest.corpus.image_count)])[0]
        return f"/api/v1/atlases/{name}/images/{image.image_id}/units"

    return {
        **{f"top {k}": about(f"patches?k={k}") for k in (9, 100, 1000)},
        "page at half depth": about("patches?quantile=0..0.5"),
        "label, many images": about(f"patches?label={FREQUENT_LABEL}"),
        "histogram": about("histogram"),
        "explain an image": explain,
    }


def random_unit(chance: random.Random) -> UnitId:
    """A unit that is not dead."""
    channel = chance.randrange(LAYER_UNITS)
    return random_unit(chance) if channel % 64 == 63 else UnitId(chance.choice(layers()).name, channel)


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """Of a list of durations."""
    return {f"p{share}": round(float(np.percentile(milliseconds, share)), 2) for share in (50, 95, 99)}


def timed_ms(ask: Ask) -> float:
    """How long one question takes."""
    started = time.perf_counter()
    ask()
    return (time.perf_counter() - started) * 1e3


def measure_store(asked: Session, chance: random.Random, count: int) -> Figures:
    """Latencies at the store, each question about another unit or image."""
    found = {}
    for name, make in store_questions(asked, chance).items():
        timed_ms(make())
        found[f"store: {name}"] = percentiles([timed_ms(make()) for _ in range(count)])
    return found


def measure_http(port: int, questions: dict[str, Callable[[], str]], count: int) -> Figures:
    """Latencies through HTTP one after the other."""
    found = {}
    for name, make in questions.items():
        ask_all(port, [make() for _ in range(20)], 1)
        times, _ = ask_all(port, [make() for _ in range(count)], 1)
        found[f"http: {name}"] = percentiles(times)
    return found


def measure_clients(port: int, make: Callable[[], str], count: int, clients: list[int], suffix: str = "") -> Figures:
    """Latencies and rate of one kind of question by several clients at once."""
    found = {}
    for number in clients:
        times, seconds = ask_all(port, [make() for _ in range(count)], number)
        found[f"{clients_name(number)}{suffix}"] = {**percentiles(times), "per_s": round(len(times) / seconds)}
    return found


def clients_name(number: int) -> str:
    """What the figure of so many clients is called."""
    return f"http: top 9, {number} clients"


def atlas_name(folder: str) -> str:
    """What the atlas in a folder of benchmarks.million is called."""
    images, segments = _order(folder)
    return f"{images:,} images" + (f" in {segments} segments" if segments > 1 else "")


def _order(folder: str) -> tuple[int, int]:
    """The count of images and of segments of the atlas in a folder."""
    images, _, segments = folder.partition("-")
    return int(images), int(segments or 1)


def medians(rounds: list[Figures]) -> Figures:
    """Of each figure over the rounds."""
    return {
        name: {key: statistics.median(one[name][key] for one in rounds) for key in figures}
        for name, figures in rounds[0].items()
    }


def ask_all(port: int, addresses: list[str], client_count: int) -> tuple[list[float], float]:
    """Milliseconds of each request, and seconds of all; raises for an answer that is no success."""

    def client(number: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def get(address: str) -> None:
            connection.request("GET", address)
            answer = connection.getresponse()
            if (body := answer.read()) and answer.status != 200:
                raise RuntimeError(f"{address} answered {answer.status}: {body[:200]!r}")

        return [timed_ms(lambda address=address: get(address)) for address in addresses[number::client_count]]

    started = time.perf_counter()
    with ThreadPoolExecutor(client_count) as pool:
        times = [one for part in pool.map(client, range(client_count)) for one in part]
    return times, time.perf_counter() - started


@contextmanager
def served(atlas: Path | str, *flags: str) -> Iterator[int]:
    """A server of the atlas in a process of its own; gives its port."""
    command = [sys.executable, "-m", "unitscope", "serve", str(atlas), "--port", "0", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "serving on" in line)
        try:
            yield int(line.partition("127.0.0.1:")[2].partition("/")[0])
        finally:
            server.terminate()


def show(results: dict[str, Figures]) -> None:
    """The figures, their growth, and each one's share of its target for the largest atlas."""
    ordered = sorted(results, key=_order)
    smallest, largest = ordered[0], ordered[-1]
    rows = []
    for name, figures in results[largest].items():
        share, target = TARGETS_MS.get(name, ("p99", None))
        rows.append(
            {
                "question": name,
                **{atlas_name(size): " / ".join(f"{v:g}" for v in results[size][name].values()) for size in results},
                "growth": f"{figures['p50'] / results[smallest][name]['p50']:.2f}",
                "of target": f"{figures[share] / target:.2f} ({share} ≤ {target})" if target else "",
            }
        )
    print_table("milliseconds: p50 / p95 / p99", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlases", type=Path, default=Path("build/bench"))
    parser.add_argument("--images", default="10000,100000,1000000", help="1000000-7: in 7 segments")
    parser.add_argument("--clients", default="1,8,50")
    parser.add_argument("--questions", type=int, default=200, help="of each kind in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checked", type=int, default=3, help="units compared with a full scan")
    options = parser.parse_args()
    results, gains = {}, {}
    for size in options.images.split(","):
        asked = Session(options.atlases / size)
        chance = random.Random(2)
        compare_with_scan(asked.atlas, [random_unit(chance) for _ in range(options.checked)])
        collect_seldom()  # as a server does once its atlases are open
        clients = [int(number) for number in options.clients.split(",")]
        one, many, together = clients_name(clients[0]), clients_name(clients[-1]), 4 * options.questions
        with served(asked.atlas.root) as port, served(asked.atlas.root, "--workers", "2") as port_of_two:
            questions = http_questions(asked, chance)
            top_9 = questions["top 9"]
            ask_all(port_of_two, [top_9() for _ in range(40)], clients[-1])
            rounds = [
                measure_store(asked, chance, options.questions)
                | measure_http(port, questions, options.questions)
                | measure_clients(port, top_9, together, clients)
                | measure_clients(port_of_two, top_9, together, clients[-1:], OF_TWO)
                for _ in range(options.rounds)
            ]
        results[size] = medians(rounds)
        gains[size] = {
            name: round(statistics.median(each[name]["per_s"] / each[one]["per_s"] for each in rounds), 3)
            for name in (many, f"{many}{OF_TWO}")
        }
    show(results)
    for size, ratios in gains.items():
        for name, ratio in ratios.items():
            sys.stdout.write(f"{atlas_name(size)}: throughput of {name} / {one}: {ratio} (wanted: 1)\n")
    save("questions", {"unit": "ms", "results": results, "throughput / that of fewest clients": gains})


if __name__ == "__main__":
    main()
