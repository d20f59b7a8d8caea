"""Where the numbers and pictures of a run go: its folder, the terminal, wandb."""
