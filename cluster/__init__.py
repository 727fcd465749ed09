"""Where it runs: searches on Ray Tune, run folders, job submission. Importing this starts nothing."""

from nasray.cluster.files import write_atomic
from nasray.cluster.joining import check_reachable
from nasray.cluster.ordering import OrderedSearch
from nasray.cluster.ownership import is_owned, owned, refuse_owned
from nasray.cluster.resources import Resources
from nasray.cluster.run import run_search, search_session
from nasray.cluster.run_folder import RunFolder
from nasray.cluster.session import ray_session

__all__ = [
    "OrderedSearch",
    "Resources",
    "RunFolder",
    "check_reachable",
    "is_owned",
    "owned",
    "ray_session",
    "refuse_owned",
    "run_search",
    "search_session",
    "write_atomic",
]
