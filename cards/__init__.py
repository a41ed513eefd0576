"""The flash cards: each trains a network, checks that it shows what its text says, draws it, and writes a page.

A card is a module of its own with a :class:`~cards.card.Card` named ``CARD``; ``python -m cards`` makes them all.
"""
