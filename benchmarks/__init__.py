"""Benchmarks: tables to read, never tests to pass."""
