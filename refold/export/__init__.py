"""The log and the views in the formats of other programs: a module for each, with `write`.

`json_lines` holds a whole log, and `read` makes a store of it again; `trace` is for timelines;
`csv` and `parquet` hold one view, or the events.
"""
