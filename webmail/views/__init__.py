"""What the browser asks of the web process outside JMAP: the page of the webmail, and the bodies of mails as documents."""
