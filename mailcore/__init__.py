"""Mail itself: wire formats, MIME, the store, the protocol servers and delivery (see docs/architecture.md)."""
