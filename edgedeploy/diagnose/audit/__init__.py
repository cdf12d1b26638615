"""What a compressed model gives away, and what may sleep in it: measured, with the limits of each finding."""
