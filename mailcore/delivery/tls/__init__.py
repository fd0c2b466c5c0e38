"""What TLS to another mail host must be, and what is told about it.

decide (what is asked of a host) ← mta_sts (policies: found, fetched, kept), dane (TLSA records against certificates);
tlsrpt (reports: what is counted, sent and received).
"""
