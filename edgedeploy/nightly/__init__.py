"""The nightly lab: what is shipped, measured on its boards again and again, and an alarm for a real regression alone."""
