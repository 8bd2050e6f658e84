"""Information, in bits per action chunk: entropies of codes, rates, and the health of a code."""
