"""How long a server keeps whoever asks for little waiting, while many ask at once for all that is costly.

    python -m benchmarks.worst_mix --atlas demo/atlas --clients 32 --seconds 60

Clients ask for the costly kinds in turn, in ways that nothing is remembered of, and not all of them wait for answers:
one in four goes away as soon as it has asked. Each kind was asked for
once before. Beside them one connection asks whether the server lives, and one for a
picture that was sent before.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from multiprocessing.queues import Queue
from pathlib import Path
from typing import NamedTuple

from benchmarks.questions import served
from benchmarks.report import print_table, save

TARGETS_S = {"livez": 1.0, "picture": 2.0}
PATIENCE_S = 120


class Figures(NamedTuple):
    """What was seen: seconds of each easy answer by its name, and how often costly ones had which status."""

    seconds: dict[str, list[float]]
    statuses: Counter[str]


class Costly:
    """Addresses of every costly kind, each time another one."""

    def __init__(self, root: str, atlas: str) -> None:
        self.root, self.api = root, f"{root}/api/v1/atlases/{atlas}"
        self.images = [row["image_id"] for row in self._rows("images?k=100")]
        layers = self._rows("layers")
        self.layers = [row["name"] for row in layers]
        self.batch = json.dumps({"vectors": [[0.5] * int(layers[-1]["units"])] * 100, "exact": True}).encode()
        self.units = {row["name"]: row["units"] for row in layers}

    def _rows(self, path: str) -> list[dict[str, str | int]]:
        with urllib.request.urlopen(f"{self.api}/{path}", timeout=PATIENCE_S) as answer:
            rows: list[dict[str, str | int]] = json.loads(answer.read())["rows"]
        return rows

    def addresses(self, chance: random.Random) -> list[tuple[str, bytes | None]]:
        """One address of each kind, with the body where there is one."""
        layer, image = chance.choice(self.layers), chance.choice(self.images)
        unit = chance.randrange(int(self.units[str(layer)]))
        of_unit, other = f"{self.api}/layers/{layer}/units/{unit}", f"v={chance.random()}"
        return [
            (f"{of_unit}/eigen?k={chance.randint(200, 400)}&size=112", None),
            (f"{of_unit}/facets?k={chance.randint(200, 1000)}", None),
            (f"{of_unit}/patches?k={chance.randint(50, 1000)}&per_image=20", None),
            (f"{of_unit}/patches?k=1000&order=random&seed={chance.randrange(10**9)}", None),
            (f"{of_unit}/bands?bands=100&k={chance.randint(50, 100)}", None),
            (f"{of_unit}/similar?by=weights&k={chance.randint(1, 1000)}", None),
            (f"{self.api}/images/{image}/map.png?layer={layer}&unit={unit}&{other}", None),
            (f"{self.api}/images/{image}/units?k={chance.randint(1, 1000)}&where=path^=a", None),
            (f"{self.api}/images/{image}/neighbors?exact=true&k={chance.randint(1, 1000)}", None),
            (f"{self.api}/images/{image}.png?width={chance.randint(1000, 4096)}", None),
            (f"{self.api}/layers/{layer}/sprites/patch.png?sheet={chance.randint(0, 3)}&{other}", None),
            (f"{self.api}/layers/first/filters/sheet.png?{other}", None),
            (f"{self.api}/neighbors", self.batch),
        ]


def ask(address: str, body: bytes | None = None) -> int:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def ask_and_leave(port: int, address: str) -> None:
    """Ask and close the connection without waiting."""
    path = "/" + address.split("/", 3)[3]
    with socket.create_connection(("127.0.0.1", port)) as asked:
        asked.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())


def press(port: int, atlas: str, clients: int, seconds: float, statuses: "Queue[str]") -> None:
    """Let so many clients ask for what is costly, and tell each status."""
    costly, end = Costly(f"http://127.0.0.1:{port}", atlas), time.monotonic() + seconds

    def client(number: int) -> None:
        chance = random.Random(number)
        for turn in itertools.count(number):
            if time.monotonic() > end:
                return
            addresses = costly.addresses(chance)
            address, body = addresses[turn % len(addresses)]
            try:
                if number % 4 == 3 and body is None:
                    ask_and_leave(port, address)
                    time.sleep(0.1)
                else:
                    statuses.put(str(ask(address, body)))
            except OSError as error:
                statuses.put(type(error).__name__)

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(port: int, atlas: str, clients: int, seconds: float) -> Figures:
    """Time what is easy beside the clients, which are a process of their own."""
    root, statuses = f"http://127.0.0.1:{port}", multiprocessing.Queue()
    costly, figures = Costly(root, atlas), Figures({name: [] for name in TARGETS_S}, Counter())
    picture = f"{costly.api}/images/{costly.images[0]}.webp?width=200"
    for address, body in [*costly.addresses(random.Random(0)), (picture, None)]:
        ask(address, body)  # the first of a kind loads what it needs, torch among it
    others = multiprocessing.Process(target=press, args=[port, atlas, clients, seconds, statuses], daemon=True)
    others.start()
    end = time.monotonic() + seconds

    def look(name: str, address: str) -> None:
        while time.monotonic() < end:
            started = time.perf_counter()
            if ask(address) != 200:
                raise AssertionError(f"{address} was refused")
            figures.seconds[name].append(time.perf_counter() - started)
            time.sleep(0.05)

    watching = [threading.Thread(target=look, args=each) for each in (("livez", f"{root}/livez"), ("picture", picture))]
    for thread in watching:
        thread.start()
    for thread in watching:
        thread.join()
    others.terminate()
    while not statuses.empty():
        figures.statuses[statuses.get()] += 1
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, default=Path("demo/atlas"))
    parser.add_argument("--corpus", type=Path, default=Path("demo/corpus"))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with served(options.atlas, "--corpus", str(options.corpus)) as port:
        figures = measure(port, options.atlas.name, options.clients, options.seconds)
    rows = [
        {
            "asked": name,
            "times": len(seconds),
            "median s": sorted(seconds)[len(seconds) // 2],
            "worst s": max(seconds),
            "wanted s": TARGETS_S[name],
        }
        for name, seconds in figures.seconds.items()
    ]
    print_table(f"Easy answers beside {options.clients} clients that ask for all that is costly", rows)
    print_table("Costly answers by status", [dict(sorted(figures.statuses.items()))])
    load = round(os.getloadavg()[0], 1)
    save(
        "worst_mix", {"load_average": load, "clients": options.clients, "easy": rows, "costly": dict(figures.statuses)}
    )


if __name__ == "__main__":
    main()
