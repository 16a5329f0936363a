"""Who is there: locks that the system drops when their process ends, however it ends."""
