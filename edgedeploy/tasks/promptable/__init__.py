"""One structure of an image, asked for by a box or a point."""
