"""What the programs tell: of a config before it is run, of runs side by side, of a step that failed."""
