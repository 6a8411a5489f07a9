"""Search spaces over recipe keys."""
