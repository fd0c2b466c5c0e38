"""Coverage-guided fuzzing of everything that reads octets of strangers: `make fuzz`; the suite replays what it kept."""
