"""Which data directory an argument means: a data directory itself, or the configuration of its node."""

from __future__ import annotations

from pathlib import Path

from shardfun.errors import ConfigurationError


def data_directory_of(place: Path) -> Path:
    """The data directory that ``CONFIG|DATA_DIR`` on the command line names.

    Raises:
        ConfigurationError: there is nothing, or it is a configuration with problems.
    """
    if place.is_dir():
        return place.absolute()
    if not place.exists():
        raise ConfigurationError(f"{place}: expected a configuration file or a data directory, but there is no such file")
    from shardfun.config import load_config

    return load_config(place).data_dir
