"""Frameworks: their events become windows."""
