"""Downloads and unpacks published archives."""
