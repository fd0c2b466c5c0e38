"""JMAP (RFC 8620, RFC 8621): the API of the webmail and of other programs, beside Django on the asynchronous store.

app       which address is answered by what          auth     who asks: session cookie or HTTP Basic
session   the Session object and the limits in it    engine   a request's method calls, back-references, errors
methods/  one file per object type                   blobs    uploads and downloads
push      the event source: state changes as they happen
"""
