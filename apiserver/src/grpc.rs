//! gRPC on the API server's port: which requests are calls, who may make them, and what answers them. A call passes the
//! same stages as every request up to here; its errors are gRPC statuses.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use apimachinery::status::ApiError;
use http::header::CONTENT_TYPE;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use proto::watch_v1::watch_server::{SERVICE_NAME, WatchServer};
use tonic::{Code, Status};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::authn::ALL_AUTHENTICATED;
use crate::body::Body;
use crate::endpoints::watch_service::WatchService;
use crate::pipeline;
use crate::request::RequestContext;
use crate::server::ApiContext;

/// Shows the definitions of the services, in both versions that clients ask for.
const REFLECTION: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
/// The longest request of the watch service.
const MAX_REQUEST: usize = 64 << 10;

type Reflection = BoxCloneSyncService<Request<Incoming>, Response<tonic::body::Body>, Infallible>;

/// Built when somebody first asks: few servers are ever asked.
static REFLECTIONS: LazyLock<[Reflection; 2]> = LazyLock::new(|| {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure();
        builder.register_encoded_file_descriptor_set(proto::WATCH_DESCRIPTORS)
    };
    let valid = "the definitions were compiled at build time";
    [
        BoxCloneSyncService::new(builder().build_v1().expect(valid)),
        BoxCloneSyncService::new(builder().build_v1alpha().expect(valid)),
    ]
});

/// The service that a path is of.
fn service(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service)
}

/// Whether a request is a call of one of our services. Anything else is an HTTP request like any other.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let service = service(request.uri().path());
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    request.version() == Version::HTTP_2
        && content_type.starts_with(b"application/grpc")
        && (service == SERVICE_NAME || REFLECTION.contains(&service))
}

/// Answers a call.
pub async fn serve(
    api: &Arc<ApiContext>,
    ctx: &Arc<RequestContext>,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    // What a call does is authorized as it comes; the definitions are no secret. Anonymous ones need a rule for the path.
    if !ctx.user.groups.iter().any(|group| group == ALL_AUTHENTICATED) {
        pipeline::authorize(api, ctx).await?;
    }
    let service = service(request.uri().path());
    let reflection = REFLECTION.iter().position(|name| *name == service);
    let answer = match reflection.and_then(|index| REFLECTIONS.get(index)) {
        Some(reflection) => reflection.clone().oneshot(request).await,
        None => {
            let service = WatchService::new(Arc::clone(api), Arc::clone(ctx));
            WatchServer::new(service).max_decoding_message_size(MAX_REQUEST).oneshot(request).await
        }
    };
    answer.map(|answer| answer.map(Body::Grpc)).map_err(|never| match never {})
}

/// An error as the answer of a call.
pub fn refusal(error: &ApiError) -> Response<Body> {
    let code = match error.code() {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        429 => Code::ResourceExhausted,
        503 | 504 => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.message()).into_http::<tonic::body::Body>().map(Body::Grpc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_other_requests() {
        let is_call = |path: &str, content_type: &str, version: Version| {
            let request = Request::post(path).header(CONTENT_TYPE, content_type).version(version);
            super::is_call(&request.body(()).unwrap())
        };
        let (watch, grpc) = ("/keelson.watch.v1.Watch/Watch", "application/grpc");
        assert!(is_call(watch, grpc, Version::HTTP_2));
        assert!(is_call(watch, "application/grpc+proto", Version::HTTP_2));
        assert!(is_call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", grpc, Version::HTTP_2));
        assert!(!is_call(watch, grpc, Version::HTTP_11));
        assert!(!is_call(watch, "application/json", Version::HTTP_2));
        for path in ["/keelson.watch.v1.Watch", "/keelson.watch.v1.Watcher/Watch", "/api/v1/pods", "/"] {
            assert!(!is_call(path, grpc, Version::HTTP_2), "{path}");
        }
    }
}
