import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("NASRAY_CACHE", os.path.join(os.path.dirname(__file__), ".cache"))
