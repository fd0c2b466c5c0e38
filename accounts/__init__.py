"""Who exists: domains, people, addresses, credentials, roles. It knows nothing of mail."""
