//! The certificates.k8s.io group, v1.

pub mod certificate_signing_request;
