"""Floor 0: what every other package may lean on. Imports neither torch nor any other headstart package."""
