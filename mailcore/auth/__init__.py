"""Who is there and what may they send as: the one path from a secret to an account, for every protocol."""
