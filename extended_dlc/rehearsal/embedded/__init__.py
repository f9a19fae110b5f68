"""The embedded AWS of the rehearsal: one process that serves AWS's APIs on one loopback port."""
