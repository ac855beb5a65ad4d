"""A file for each architecture: the tables of its variables for each library that has published weights of it."""
