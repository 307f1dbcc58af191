//! Starts real etcd, apiserver and clusters for tests and benchmarks.
