"""tierwise.toml and the environment, read into `tierwise.core.settings.Settings`."""

from tierwise.config.load import (
    config_paths,
    default_ledger_path,
    load_settings,
    shipped_settings,
    user_config_path,
)

__all__ = ["config_paths", "default_ledger_path", "load_settings", "shipped_settings", "user_config_path"]
