"""Measurements, each one command with JSON on stdout."""
