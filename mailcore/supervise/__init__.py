"""`manage.py up`: runs the whole installation in the foreground and keeps it running."""
