//! `/containerLogs`: which container's log, from the query to the stream. Upstream's concept: `getContainerLogs` in
//! `server.go`, `validateContainerLogStatus` in `kubelet_pods.go`.

use bytes::Bytes;
use component_base::serving::ResponseBody;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::query::Query;
use crate::logs::read::{self, LogOptions};
use crate::runtime::{ContainerState, Runtime, RuntimeContainerStatus, RuntimePodStatus};

/// Chunks on their way to a slow client.
const QUEUE: usize = 4;

/// A refusal: code and text.
pub type Refusal = (StatusCode, String);

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The log of the container before this one.
    pub previous: bool,
    /// What of it.
    pub options: LogOptions,
}

fn unprocessable(field: &str, why: &str) -> Refusal {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("Invalid request: {field}: {why}"))
}

/// Reads the query. `now` makes `sinceSeconds` a time.
pub fn parse(query: &Query, now: Timestamp) -> Result<LogRequest, Refusal> {
    let flag = |name: &str| match query.first(name) {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err((StatusCode::BAD_REQUEST, format!("Unable to decode query: {name}"))),
    };
    let number = |name: &str, least: i64| match query.first(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(number) if number >= least => Ok(Some(number.unsigned_abs())),
            Ok(_) => Err(unprocessable(name, &format!("must be greater than or equal to {least}"))),
            Err(_) => Err((StatusCode::BAD_REQUEST, format!("Unable to decode query: {name}"))),
        },
    };
    // "all" was an old client's way to say so.
    let tail_lines = if query.first("tailLines") == Some("all") { None } else { number("tailLines", 0)? };
    let since_seconds = number("sinceSeconds", 1)?;
    let since_time = match query.first("sinceTime").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse::<Timestamp>()
                .map_err(|_| (StatusCode::BAD_REQUEST, "Unable to decode query: sinceTime".to_owned()))?,
        ),
    };
    let since = match (since_seconds, since_time) {
        (Some(_), Some(_)) => {
            return Err(unprocessable(
                "sinceTime",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        (Some(seconds), None) => {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN))
        }
        (None, time) => time,
    };
    if !matches!(query.first("stream"), None | Some("" | "All")) {
        return Err(unprocessable("stream", "only All is supported"));
    }
    let options = LogOptions {
        tail_lines,
        since,
        timestamps: flag("timestamps")?,
        limit_bytes: number("limitBytes", 1)?,
        follow: flag("follow")?,
    };
    Ok(LogRequest { previous: flag("previous")?, options })
}

/// The container of that name in a status, init containers included.
fn status_of<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// The attempt whose log is asked for: the newest, or the one before it.
pub fn choose<'a>(
    pod: &Pod,
    status: Option<&PodStatus>,
    found: &'a RuntimePodStatus,
    name: &str,
    previous: bool,
) -> Result<&'a RuntimeContainerStatus, Refusal> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut attempts =
        found.containers.iter().filter(|c| c.name == name && c.state != ContainerState::Created);
    let newest = attempts.next();
    if previous {
        // When the newest one is dead and nothing runs yet, it is itself the previous one.
        let waits = status
            .and_then(|s| status_of(s, name))
            .is_some_and(|s| s.state.as_ref().is_some_and(|state| state.waiting.is_some()));
        let dead = newest.filter(|c| c.state == ContainerState::Exited && waits);
        return dead.or_else(|| attempts.next()).ok_or_else(|| {
            let text = format!("previous terminated container {name:?} in pod {pod_name:?} not found");
            (StatusCode::BAD_REQUEST, text)
        });
    }
    if let Some(newest) = newest {
        return Ok(newest);
    }
    let waiting = status.and_then(|s| status_of(s, name)).and_then(|s| s.state.as_ref()?.waiting.as_ref());
    let reason = match waiting.and_then(|w| w.reason.as_deref()).unwrap_or("ContainerCreating") {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    Err((
        StatusCode::BAD_REQUEST,
        format!("container {name:?} in pod {pod_name:?} is waiting to start: {reason}"),
    ))
}

/// Streams a container's log.
pub fn stream(
    runtime: Runtime,
    container: &RuntimeContainerStatus,
    options: LogOptions,
) -> Response<ResponseBody> {
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    let (path, id) = (container.log_path.clone(), container.id.clone());
    tokio::spawn(async move {
        let running = || async {
            match runtime.cri().container_status(&id).await {
                Ok(status) => status.state() == proto::runtime_v1::ContainerState::ContainerRunning,
                Err(error) => !error.is_not_found(),
            }
        };
        if let Err(error) = read::read(&path, &options, running, &sender).await {
            tracing::warn!(path = %path.display(), %error, "log not read");
            let text = format!("unable to retrieve container logs for {id}: {error}\n");
            // The client may be gone.
            let _ = sender.send(Bytes::from(text)).await;
        }
    });
    let frames = ReceiverStream::new(receiver).map(|chunk| Ok(Frame::data(chunk)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(text: &str) -> Result<LogRequest, StatusCode> {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        parse(&Query::parse(Some(text)), now).map_err(|(code, _)| code)
    }

    #[test]
    fn queries() {
        let got = request("follow=true&tailLines=5&sinceSeconds=60&timestamps=1&limitBytes=9&previous=true")
            .unwrap();
        assert!(got.previous && got.options.follow && got.options.timestamps);
        assert_eq!((got.options.tail_lines, got.options.limit_bytes), (Some(5), Some(9)));
        assert_eq!(got.options.since.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(request("").unwrap().options, LogOptions::default());
        for (text, code) in [
            ("tailLines=-1", 422),
            ("tailLines=x", 400),
            ("tailLines=99999999999999999999", 400),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422),
            ("sinceTime=yesterday", 400),
            ("follow=maybe", 400),
            ("stream=Stderr", 422),
        ] {
            assert_eq!(request(text).unwrap_err().as_u16(), code, "{text}");
        }
        assert!(request("sinceSeconds=9223372036854775807").unwrap().options.since.is_some());
    }

    #[test]
    fn attempts() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap();
        let attempt = |id: &str, state| RuntimeContainerStatus {
            id: id.to_owned(),
            name: "c".to_owned(),
            sandbox_id: String::new(),
            restart_count: 0,
            state,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            spec_hash: None,
            log_path: std::path::PathBuf::new(),
        };
        let waiting = |reason: &str| -> PodStatus {
            serde_json::from_value(
                json!({"containerStatuses": [{"name": "c", "ready": false, "restartCount": 0,
                "image": "", "imageID": "", "state": {"waiting": {"reason": reason}}}]}),
            )
            .unwrap()
        };
        let pick = |containers: Vec<RuntimeContainerStatus>, status: Option<PodStatus>, previous| {
            let found = RuntimePodStatus { containers, ..Default::default() };
            choose(&pod, status.as_ref(), &found, "c", previous)
                .map(|c| c.id.clone())
                .map_err(|(_, text)| text)
        };
        use ContainerState::{Created, Exited, Running};
        let two = || vec![attempt("new", Running), attempt("old", Exited)];
        assert_eq!(pick(two(), None, false), Ok("new".to_owned()));
        assert_eq!(pick(two(), None, true), Ok("old".to_owned()));
        assert_eq!(
            pick(vec![attempt("dead", Exited)], Some(waiting("CrashLoopBackOff")), true),
            Ok("dead".to_owned())
        );
        assert!(
            pick(vec![attempt("new", Running)], None, true)
                .unwrap_err()
                .starts_with("previous terminated container \"c\"")
        );
        assert_eq!(
            pick(vec![attempt("new", Created)], Some(waiting("ErrImagePull")), false).unwrap_err(),
            "container \"c\" in pod \"p\" is waiting to start: image can't be pulled"
        );
        assert!(pick(vec![], None, false).unwrap_err().ends_with("ContainerCreating"));
    }
}
