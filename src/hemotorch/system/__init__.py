"""The machine underneath: files, processors, progress, devices, and the processes that train together."""
