"""Artifact against reference, layer by layer."""
