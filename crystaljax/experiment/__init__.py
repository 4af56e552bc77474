"""Shared parts of experiment scripts: run folders, set-ups, reports."""
