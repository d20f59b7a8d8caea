"""Data: what ships with the trainer, and what users bring. See `trainer.data.base` for what a source hands over."""
