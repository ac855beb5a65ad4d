"""Files and progress: atomic writes, locks, manifests, growing .npz files, progress bars."""
