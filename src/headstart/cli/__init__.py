"""Floor 9: commands. Each parses, calls one function of `headstart.workflow`, and prints."""
