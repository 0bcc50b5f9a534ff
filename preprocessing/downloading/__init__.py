"""Published archives, fetched and unpacked."""
