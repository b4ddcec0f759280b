"""Choose: what was asked, how many units stay of each group, and which."""
