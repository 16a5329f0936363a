"""What is measured: a file for each kind of work, whose `measure` returns its section."""
