"""fastai: its events become windows, and its optimiser one that can be listened to."""
