"""What a live frame costs by stage and layer, and how many a second Chromium gets from a camera that it makes up.

    OMP_NUM_THREADS=1 python -m benchmarks.live --atlas demo/atlas

Frames are photographs of the atlas, scaled as the page scales a camera's. Beside them the bare forward of the whole
model in the same run. Server and browser are processes of their own, on the same machine.
"""

import argparse
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from playwright.sync_api import sync_playwright

from benchmarks.questions import served
from benchmarks.report import print_table, save
from unitscope_pipelines.vision.images.preprocessing import normalise, prepare
from unitscope_pipelines.vision.models.models import reload_model
from unitscope_schemas.answers.live import LiveAsk
from unitscope_schemas.formats import json_bytes
from unitscope_services.atlas.crops import picture, read_image
from unitscope_services.queries.live import Stages, answer, frame_of
from unitscope_services.queries.session import Session

TARGET_PER_S = 5
CAMERA = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def camera_frames(asked: Session, count: int) -> list[bytes]:
    """Photographs of the atlas as JPEG, their shorter side that of the network's preprocessing."""
    shorter = asked.atlas.manifest.preprocessing.resize_px
    frames = []
    for row in asked.atlas.catalogue.rows(range(count)):
        whole = picture(asked.atlas, read_image(asked.atlas, row))
        scale = shorter / min(whole.size)
        file = io.BytesIO()
        whole.resize((round(whole.width * scale), round(whole.height * scale))).save(file, "JPEG", quality=92)
        frames.append(file.getvalue())
    return frames


def median_ms(run: Callable[[bytes], object], frames: list[bytes]) -> float:
    times = []
    for data in frames:
        started = time.perf_counter()
        run(data)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def bare_forward_ms(asked: Session, frames: list[bytes]) -> float:
    """The whole model on a prepared frame, nothing recorded."""
    manifest = asked.atlas.manifest
    module = reload_model(manifest.model).module
    inputs = iter(
        [normalise(prepare(data, manifest.preprocessing).pixels[None], manifest.preprocessing) for data in frames]
    )
    with torch.inference_mode():
        return median_ms(lambda _: module(next(inputs)), frames)


def stages_ms(asked: Session, unit: str, frames: list[bytes], method: str | None = None) -> dict[str, float]:
    """Medians by stage of the server's work, and the size of an answer."""
    found: list[dict[str, float]] = []
    for data in frames:
        ask, stages = LiveAsk(unit=unit, method=method), Stages()  # type: ignore[arg-type]
        started = time.perf_counter()
        with stages.of("prepare"):
            frame = frame_of(asked, ask, data)
        answered = answer(asked, ask, frame, stages)
        with stages.of("encode"):
            size = len(json_bytes(answered.head)) + sum(map(len, answered.parts.values()))
        took = {stage: 1e3 * seconds for stage, seconds in stages.seconds.items()}
        found.append({**took, "all": 1e3 * (time.perf_counter() - started), "kB": size / 1e3})
    return {name: round(float(np.median([one[name] for one in found])), 2) for name in found[0]}


def browser_rates(atlas: Path, questions: dict[str, str], seconds: float) -> dict[str, float]:
    """Answers a second that the page gets with a camera, for each name and its part of the address."""
    rates = {}
    with served(atlas) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CAMERA)
        for name, question in questions.items():
            page, answers = browser.new_page(), []
            page.on("websocket", lambda socket, into=answers: socket.on("framereceived", counting(into)))
            page.goto(f"http://127.0.0.1:{port}/a/{atlas.name}/live?{question}")
            page.get_by_role("button", name="Camera").click()
            while not answers:
                page.wait_for_timeout(100)  # the server loads what it needs for the first
            page.wait_for_timeout(2000)
            before = len(answers)
            page.wait_for_timeout(1000 * seconds)
            rates[name] = (len(answers) - before) / seconds
            page.close()
        browser.close()
    return rates


def counting(into: list[str]) -> Callable[[Any], None]:
    """Keeps the texts that arrive, one for each answer."""
    return lambda payload: into.append(payload) if isinstance(payload, str) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, default=Path("demo/atlas"))
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement in the browser")
    options = parser.parse_args()
    asked = Session(options.atlas)
    frames = camera_frames(asked, options.frames)
    bare = bare_forward_ms(asked, frames)
    layers = [entry.spec.name for entry in asked.atlas.manifest.layers]
    rows = []
    for layer in layers:
        stages_ms(asked, f"{layer}:0", frames[:2])
        rows.append({"layer": layer, **stages_ms(asked, f"{layer}:0", frames)})
    print_table(f"Milliseconds a frame by stage (bare forward of the whole model: {bare:.1f})", rows)
    backward = [
        {"backward": method, **stages_ms(asked, f"{layers[-1]}:0", frames[:8], method)}
        for method in ("gradient", "gradient-x-input", "guided", "deconvnet")
    ]
    print_table(f"The same with a projection from {layers[-1]}", backward)
    few = [layers[0], layers[len(layers) // 2], layers[-1]]
    questions = {layer: f"unit={layer}:0" for layer in few}
    questions[f"{few[-1]}, guided"] = f"unit={few[-1]}:0&back=guided"
    rates = browser_rates(options.atlas, questions, options.seconds)
    shown = [{"page": name, "frames/s": rate, "wanted": TARGET_PER_S} for name, rate in rates.items()]
    print_table("Frames a second in Chromium", shown)
    busy = {"load_average": round(os.getloadavg()[0], 1)}  # of the whole machine: it should be that of this run alone
    save("live", {**busy, "bare_forward_ms": bare, "layers_ms": rows, "backward_ms": backward, "frames_per_s": rates})


if __name__ == "__main__":
    main()
