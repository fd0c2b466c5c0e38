"""The SMTP servers: port 25 for other servers (MX), LMTP for front ends, the submission ports for people's programs.

policy      how the listeners differ, as data              server      listeners, admission, shutdown
connection  octets, replies, time limits over aiosmtpd      session     the command table and the plain commands
extensions  EHLO, STARTTLS, AUTH                            transaction MAIL, RCPT, DATA, BDAT: one message
spool       a message while it arrives                      taking      a message that is complete: taken or refused
refusals    hears of every refusal                          errors      MailError to reply codes, in one table
"""
