import atexit
import os
import shutil
import tempfile

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # test processes share the processors; see nasray.cluster.session
if "NASRAY_CACHE" not in os.environ:  # workers of pytest-xdist inherit their parent's
    os.environ["NASRAY_CACHE"] = tempfile.mkdtemp(prefix="nasray-cache-")
    atexit.register(shutil.rmtree, os.environ["NASRAY_CACHE"], ignore_errors=True)
