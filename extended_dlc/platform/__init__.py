"""Images for many teams: built in the cloud, published once, deployed from inside a platform's own rules."""
