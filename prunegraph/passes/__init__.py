"""The passes, a room each: normalize, rotate, dead units, score, choose, rewrite, prove, repair."""
