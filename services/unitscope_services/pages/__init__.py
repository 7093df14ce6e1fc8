"""What people look at, made from the same answers as the API's."""
