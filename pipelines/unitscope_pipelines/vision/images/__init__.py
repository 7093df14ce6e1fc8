"""Images: pictures from bytes to the network's input, and arrays as pictures."""
