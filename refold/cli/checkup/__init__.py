"""What `refold doctor` looks at, each thing in a file of its own."""
