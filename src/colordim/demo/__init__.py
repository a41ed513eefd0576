"""The trainings that ``colordim demo`` runs, on real digits."""
