"""Image and text in one space: which description belongs to an image."""
