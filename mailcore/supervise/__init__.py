"""`manage.py up`: runs the whole installation in the foreground and keeps it running.

main       the course of it: checks, servers, preparation, roles, the summary, the way down
preflight  the data directory and its lock, the ports, what a killed supervisor left behind
embedded   our own Postgres and Valkey: made, configured, started
setup      between database and roles: checks of the servers, migrations, certificate, first account
schema     whether the database was made by this code
roles      web, mail, worker and beat as a table of command lines
keeper     children: started, read, restarted, stopped
launch     how a child begins: session, user, capabilities, death with its parent
probes, output, summary   what it asks the children, and what it prints
"""
