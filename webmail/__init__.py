"""The Django project and everything that is seen in a browser; nothing imports it."""
