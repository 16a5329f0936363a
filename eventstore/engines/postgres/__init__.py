"""The engine for several machines: a PostgreSQL server. Needs `refold[postgres]`."""
