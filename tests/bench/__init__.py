"""`make bench`: Mailstead beside Postfix and Dovecot on this machine, in one run, as ratios."""
