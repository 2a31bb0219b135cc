"""Whether a migration is safe on tables that are in use: what each statement locks, rules, waivers, safe forms."""
