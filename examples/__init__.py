"""How refold is used: begin with `controller.py` and `worker.py`; `demo.py` runs everything."""
