"""Classifiers on the features of a network that stays as it is: features are computed once, then all takes seconds."""
