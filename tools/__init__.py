"""What the checkout's own commands run; none of it is published as a package."""
