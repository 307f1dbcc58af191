//! gRPC services and protobuf messages: CRI.
