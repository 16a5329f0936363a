"""What refold is measured against, each at its own best."""
