"""han-exporter: octets from a smart meter's HAN port become points in InfluxDB."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("han-exporter")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0"

__all__ = ["__version__"]
