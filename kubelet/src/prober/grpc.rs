//! gRPC probes: `grpc.health.v1.Health/Check` answers SERVING. Upstream's concept: `pkg/probe/grpc`.

use std::time::Duration;

use tonic::transport::Endpoint;

use super::action::Verdict;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks.
pub(super) async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Verdict {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let address = format!("{host}:{port}");
    match tokio::time::timeout(timeout, check(&address, service)).await {
        Ok(Ok(SERVING)) => Verdict::Success,
        Ok(Ok(status)) => {
            Verdict::Failure(format!("service unhealthy (responded with {:?})", status_name(status)))
        }
        Ok(Err(message)) => Verdict::Failure(message),
        Err(_) => {
            let limit = component_base::duration::format(timeout);
            Verdict::Failure(format!("timeout: failed to connect service {address:?} within {limit}"))
        }
    }
}

fn status_name(status: i32) -> &'static str {
    match status {
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "INVALID",
    }
}

async fn check(address: &str, service: &str) -> Result<i32, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent("kube-probe/1.36"))
        .map_err(|error| format!("error: invalid address {address:?}: {error}"))?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| format!("error: failed to connect service at {address:?}: {error}"))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| format!("error: health rpc failed: {error}"))?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    match grpc.unary(request, path, codec).await {
        Ok(response) => Ok(response.into_inner().status),
        Err(status) => Err(format!("error: health rpc probe failed: {status}")),
    }
}
