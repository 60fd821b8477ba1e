"""The rules behind `headstart.evaluation.selection`, one file for each thing they look at."""
