"""The databases that hold a store, behind one protocol."""
