"""What readers may cost the server: turns by kind, rates, and a floor of memory."""
