"""What the browser asks of the web process outside JMAP: the webmail's page, and bodies of mails as documents."""
