"""Certificates of our own servers: issued (ACME) or imported, kept in the database, served within seconds.

`material` keys, certificates and the DNS records about them; `acme` the conversation with an authority; `renewal` what
is wanted and when; `watch` how the mail process hears of it; `health` what the doctor says.
"""
