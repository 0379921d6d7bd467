"""han-exporter: bytes from a smart meter's HAN port become points in InfluxDB."""

from typing import TYPE_CHECKING

__all__ = ["__version__"]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """`__version__`, looked up when asked for: importlib.metadata takes longer to load than all of `--help`."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("han-exporter")
        except PackageNotFoundError:  # run from a source tree that was never installed
            return "0"
