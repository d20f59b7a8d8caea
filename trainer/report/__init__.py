"""Comparing runs from their folders alone."""
