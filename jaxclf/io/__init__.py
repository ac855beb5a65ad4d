"""Files: atomic writes, locks, manifests, growing .npz files, progress bars."""
