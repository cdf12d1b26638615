"""Denoising of low-dose CT slices, of scans that are made here or of real pairs."""
