"""The state of a running application, opened when it starts."""

import gc
from dataclasses import dataclass, field

from jinja2 import Environment
from starlette.requests import Request

from unitscope_pipelines.storage.cache import Cache
from unitscope_pipelines.storage.stores import store_of
from unitscope_services.server.access.keys import Keys
from unitscope_services.server.atlas_registry import AtlasRegistry
from unitscope_services.server.job_registry import JobRegistry
from unitscope_services.server.jobs import Jobs
from unitscope_services.server.limits.admission import Admission
from unitscope_services.server.limits.costs import Turns
from unitscope_services.server.limits.rates import Rates
from unitscope_services.server.limits.sockets import Sockets
from unitscope_services.server.settings import Settings
from unitscope_services.server.telemetry import Telemetry
from unitscope_services.server.uploads import Uploads
from unitscope_services.web.assets import StaticFile
from unitscope_services.web.picture_memory import PictureMemory

_COLLECTED_AFTER = 20_000
"""New objects, some answers' worth, after which the collector runs: at Python's own 700, a page of 1,000 rows is looked
through as it is made, for a tenth of its time and more."""


@dataclass
class AppState:
    """All that a running application holds: settings, keys and figures from the first moment, the atlases once they are
    open."""

    settings: Settings
    keys: Keys
    templates: Environment
    pages_digest: str
    static: dict[str, StaticFile]
    telemetry: Telemetry
    admission: Admission
    uploads: Uploads
    job_registry: JobRegistry
    jobs: Jobs
    turns: Turns
    rates: Rates
    live: Sockets
    picture_memory: PictureMemory
    _atlases: AtlasRegistry | None = field(default=None)

    @property
    def atlases(self) -> AtlasRegistry:
        """The served atlases; only while the application runs."""
        assert self._atlases is not None, "the atlases are opened by the application's lifespan"
        return self._atlases

    @property
    def is_open(self) -> bool:
        """Whether the atlases are open."""
        return self._atlases is not None

    def open(self) -> None:
        """Open all atlases; raises what is wrong with one of them."""
        settings = self.settings
        cache = Cache.from_environment(settings.cache, settings.cache_gb)
        stores = tuple(store_of(root, cache) for root in settings.atlases)
        self._atlases = AtlasRegistry(
            stores,
            settings.question_timeout_s,
            self.admission.turn,
            settings.trust_code,
            settings.corpora,
            settings.check_parts,
            settings.annotations,
        )
        collect_seldom()

    def close(self) -> None:
        """Let go of all atlases; no request may be under way."""
        self.jobs.close()
        self.atlases.close()
        self._atlases = None


def collect_seldom() -> None:
    """Keep what is in memory by now: the collector need not look through it again, which takes 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)


def state_of(request: Request) -> AppState:
    """Return the state of the application that a request came to."""
    app_state: AppState = request.app.state.app_state
    return app_state
