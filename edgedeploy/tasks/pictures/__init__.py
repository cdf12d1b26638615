"""What the kinds of task over image files share."""
