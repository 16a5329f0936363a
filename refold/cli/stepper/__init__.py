"""What `refold step` is made of: the walk through the log, its picture, and the keys."""
