"""Turning files and typed text into ids."""
