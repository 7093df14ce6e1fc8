"""The main job: from a corpus and a model to a sealed version of an atlas, and its upkeep."""
