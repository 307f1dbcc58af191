//! The endpoints over real sockets on loopback.
