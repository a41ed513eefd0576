"""How far the diagnosis can be trusted: real trainings, healthy and broken, judged by outcome, ours beside earlier rule sets."""
