"""Light curves to numbers: one family of features a file, `catalog` lists them in the order of the matrix."""
