"""Work is spread over Ray: a local cluster by default, a running one by address. The only room that imports Ray."""
