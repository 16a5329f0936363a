"""The log: appended to, read, subscribed to, copied, looked back at."""
