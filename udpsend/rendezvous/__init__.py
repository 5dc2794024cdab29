"""Two people with a word -> one key, two lists of candidates."""
