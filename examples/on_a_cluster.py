"""A running Ray cluster: say what a run will cost, spread it over the nodes, and see what each of them did.

    ray start --head --port 6379                       # on one machine
    ray start --address HEAD:6379                      # on each of the others
    python examples/on_a_cluster.py /shared/pictures /shared/atlas HEAD:6379

Pictures and atlas lie where all machines can read them: a shared file system, or s3://.
"""

import argparse

from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.forecast import forecast
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.plan import make_plan
from unitscope_schemas.progress import Progress

LAYERS = ("_blocks.0", "_blocks.5")


def main(pictures: str, atlas: str, address: str) -> None:
    """Index `pictures` into `atlas` on the cluster at `address`, and print what each node has scanned."""
    config = IndexConfig(corpus=pictures, atlas=atlas, layers=LAYERS, address=address)
    planned = forecast(make_plan(config, list_corpus(pictures), lambda progress: None))
    print(f"{planned.pending_files} of {planned.files} files are to be scanned, for {planned.rows:,} rows")
    print(f"the atlas will take {planned.size_bytes / 1e6:.0f} MB")

    scanned: dict[str, int] = {}

    def report(progress: Progress) -> None:
        if progress.stage == "scan":
            scanned.update(progress.nodes)

    manifest = index(config, report)
    for node, count in sorted(scanned.items()):
        print(f"{node} scanned {count} files")
    print(f"version {manifest.version} of {atlas} holds {manifest.corpus.image_count} images")


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("pictures", help="folder, shards or list; or s3://…")
    words.add_argument("atlas", help="folder or s3://… to write")
    words.add_argument("address", help="address of the cluster's head")
    main(**vars(words.parse_args()))
