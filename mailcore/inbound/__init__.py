"""What happens to a message between the protocol that takes it and the store.

recipients  who it is for, decided at RCPT                  headers   trace lines, and what must not stay in the header
checks/     what is found out about it                      verdict   what follows from the findings
file        which mailbox, which flags, for each recipient  receive   all of it in order, up to the commit
"""
