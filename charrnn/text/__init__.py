"""From files and what a user types to ids."""
