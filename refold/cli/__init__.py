"""The command line: `refold status`, `refold why run 5 status` …"""
