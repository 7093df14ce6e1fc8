import tomllib
from pathlib import Path

from unitscope_pipelines.indexing.config import IndexConfig

SAMPLE = Path(__file__).parents[3] / "deploy" / "index.toml"


def test_the_sample_run_names_every_setting_with_its_default() -> None:
    text = SAMPLE.read_text()
    given = tomllib.loads(text)["index"]
    for name, field in IndexConfig.model_fields.items():
        assert f"\n{name} = " in text or f"\n# {name} = " in text, name
        if name in given:
            value = tuple(given[name]) if isinstance(given[name], list) else given[name]
            assert value == field.default, name
    IndexConfig(corpus="pictures", atlas="atlas", **given)
