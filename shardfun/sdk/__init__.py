"""What function authors use. Light: importing it loads no Trio, nng or LevelDB."""
