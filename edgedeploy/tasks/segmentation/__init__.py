"""Segmentation of images: folders of pictures, and synthetic ultrasound."""
