"""Configuration: every setting, its default, and how files, environment and command line become one checked ``Config``."""

from shardfun.config.loader import config_from_mapping, load_config
from shardfun.config.schema import Config

__all__ = ["Config", "config_from_mapping", "load_config"]
