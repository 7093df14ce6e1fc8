"""Nine projections of a unit of VGG16's last convolution, by each method, on two cores: the target is 5 s.

    python -m benchmarks.project

Random weights: they change no figure here. The forward before is part of the time, loading the network is not. On a
machine that others use too, the processor's seconds on each core say what the clock would without them.
"""

import argparse
import time

import torch

from benchmarks.report import print_table, save
from unitscope_pipelines.vision.attribution.deconvnet import METHODS, project
from unitscope_pipelines.vision.models.models import load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers

LAYER, CORES, TARGET_S = "features.28", 2, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-k", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(CORES)
    model = load_model("torchvision:vgg16", "random:0")
    layer = measure_layers(model.module, [LAYER], model.input_shape, picture_count=0)[0]
    images = torch.randn(asked.k, *model.input_shape, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)  # as normalise gives them
    places = [layer.location(7 * layer.grid.width + 7)] * asked.k
    rows = []
    for method in METHODS:
        seconds, processor = [], []
        for _ in range(asked.rounds):
            started, used = time.perf_counter(), time.process_time()
            project(model.module, layer, 130, images, places, method)
            seconds.append(time.perf_counter() - started)
            processor.append((time.process_time() - used) / CORES)
        rows.append(
            {
                "method": method,
                "seconds": min(seconds),
                "slowest": max(seconds),
                "processor seconds per core": min(processor),
                "target": TARGET_S,
            }
        )
    print_table(f"{asked.k} projections of {LAYER}:130 of VGG16, {CORES} threads", rows)
    save("project", {"layer": LAYER, "projections": asked.k, "threads": CORES, "rows": rows})


if __name__ == "__main__":
    main()
