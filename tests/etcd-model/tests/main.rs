//! The model beside a real etcd: the same requests to both, and every answer and every watch event compared.
//!
//! `KEELSON_ETCD` names the etcd, else it is PATH's. `KEELSON_ETCD_MODEL_OPS` is how many operations the random program
//! has, `KEELSON_SEED` which one it is; a failure prints the seed, and the same seed makes the same program.

mod differential;
mod operation;
mod program;
mod random;
mod real;
mod scenarios;
