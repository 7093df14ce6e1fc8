"""Tables of more rows than memory should hold: their temporary files, and the database that joins and sorts them."""
