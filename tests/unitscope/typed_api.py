"""What type checkers and editors see of the public API; read by `test_types`, never run."""

from typing import reveal_type

import unitscope

atlas = unitscope.open_atlas("atlas")
client = unitscope.Client("http://127.0.0.1:8000")
questions: unitscope.Questions = atlas
questions = client

reveal_type(unitscope.open_atlas)
reveal_type(unitscope.Client)
reveal_type(atlas.layers)
reveal_type(atlas.units)
reveal_type(atlas.images)
reveal_type(atlas.skipped)
reveal_type(atlas.top)
reveal_type(atlas.bands)
reveal_type(atlas.histogram)
reveal_type(atlas.labels)
reveal_type(atlas.selectivity)
reveal_type(atlas.selective)
reveal_type(atlas.facets)
reveal_type(atlas.similar)
reveal_type(atlas.correlate)
reveal_type(atlas.compare)
reveal_type(atlas.comparisons)
reveal_type(atlas.comparison)
reveal_type(atlas.explain)
reveal_type(atlas.trace)
reveal_type(atlas.digests)
reveal_type(atlas.neighbors)
reveal_type(atlas.optimise)
reveal_type(atlas.project)
reveal_type(atlas.visualisations)
reveal_type(atlas.visualisation)
reveal_type(atlas.filters)
reveal_type(atlas.eigen)
reveal_type(atlas.eigen_patches)
reveal_type(atlas.manifest)
reveal_type(client.layers)
reveal_type(client.units)
reveal_type(client.images)
reveal_type(client.skipped)
reveal_type(client.top)
reveal_type(client.bands)
reveal_type(client.histogram)
reveal_type(client.labels)
reveal_type(client.selectivity)
reveal_type(client.selective)
reveal_type(client.facets)
reveal_type(client.similar)
reveal_type(client.correlate)
reveal_type(client.compare)
reveal_type(client.comparisons)
reveal_type(client.comparison)
reveal_type(client.explain)
reveal_type(client.trace)
reveal_type(client.digests)
reveal_type(client.neighbors)
reveal_type(client.optimise)
reveal_type(client.project)
reveal_type(client.visualisations)
reveal_type(client.visualisation)
reveal_type(client.filters)
reveal_type(client.eigen)

atlas.top("_blocks.15:130", lable="cat")  # error: Unexpected keyword argument "lable"
client.top("_blocks.15:130", k="9")  # error: Argument "k"
atlas.top("_blocks.15:130", order="best")  # error: Argument "order"
atlas.neighbors("cats/tom.jpg", box=(1, 2, 3))  # error: Argument "box"
