"""A teacher: trained here or brought along, loaded with its languages, and a source of targets."""
