"""The proof: one installation, real programs around it, and a message's whole life from connection to bounce."""
