"""Stores bulk data as content-addressed folders: a manifest has the digests of the files, a reference that of the manifest.

Layout: `<store>/sha256/<first two>/<digest>/` with the files and `manifest.json`. A local artifact is written to
`<store>/tmp`, synced and renamed; in an object store the manifest is written last. A folder without a manifest is
incomplete and never read. Putting the same content twice is harmless. All calls block: use them in child processes and
threads.
"""
