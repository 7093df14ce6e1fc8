"""What is made of a sealed atlas on request and stored in it: pictures of units, co-activation, comparisons."""
