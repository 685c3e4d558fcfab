"""Questions that outgrow one machine, cut into tasks for an existing scheduler (Dask's `distributed`)."""
