"""The file formats of request traces: one file a format, and one line for it in :mod:`~.registry`.

An Azure CSV and a BurstGPT CSV are column maps over one reader, :class:`~.csv_table.CsvTable`; so is any other table.
"""
