"""What the constructs share: the network, service principals, archives, builds, and the rules of a platform."""
