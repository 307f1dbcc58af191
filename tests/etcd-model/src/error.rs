//! The refusals of etcd, with its texts and gRPC codes. Upstream: `etcdserver/api/v3rpc/rpctypes/error.go`.

/// Why a request was refused. Nothing of a refused request is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
}

impl Error {
    /// The gRPC status code it comes with.
    pub fn code(self) -> i32 {
        match self {
            Error::EmptyKey | Error::TooManyOps | Error::DuplicateKey => 3,
            Error::LeaseNotFound => 5,
            Error::LeaseExists => 9,
            Error::Compacted | Error::FutureRevision | Error::LeaseTtlTooLarge => 11,
        }
    }
}
