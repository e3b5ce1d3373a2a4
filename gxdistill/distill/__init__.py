"""The method: unroll an inner training loop on distilled data and differentiate through it.

Everything here receives functions; nothing imports `models` or `data`.
"""
