//! Elections between electors that share a lease, on a clock in hand.
