//! The fake apiserver's HTTP side, and the client that leads to it.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use proto::watch_v1::watch_server::WatchServer;
use serde_json::{Value, json};
use tower::{BoxError, Service as _, service_fn};

use super::fake::{End, Fake, Feed, Offers, Told};

type FakeBody = UnsyncBoxBody<Bytes, BoxError>;

impl Fake {
    pub(in crate::informer) fn client(&self) -> Client {
        let fake = self.clone();
        let service = service_fn(move |request| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<FakeBody> {
        let offers = self.world.lock().offers;
        let query = request.uri().query().unwrap_or_default().to_owned();
        let get = |key: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            pair.map(|value| value.replace("%3D", "="))
        };
        assert_ne!(get("resourceVersion").as_deref(), Some("0"), "nobody may ask for any state");
        let selector = get("labelSelector").unwrap_or_default();
        if request.uri().path().starts_with("/keelson.") {
            if offers != Offers::Grpc {
                self.world.lock().asked.push("no stream".to_owned());
                return status(StatusCode::NOT_FOUND, "NotFound");
            }
            let answer = WatchServer::new(self.clone()).call(request).await.unwrap();
            return answer.map(|body| body.map_err(BoxError::from).boxed_unsync());
        }
        assert_eq!(request.uri().path(), "/api/v1/configmaps");
        if self.world.lock().forbidden.as_ref() == Some(&selector) {
            self.world.lock().asked.push("forbidden".to_owned());
            return status(StatusCode::FORBIDDEN, "Forbidden");
        }
        if get("watch").is_none() {
            return self.list(&selector);
        }
        if offers == Offers::List && get("sendInitialEvents").is_some() {
            return status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        let from = get("resourceVersion").map(|version| version.parse().unwrap());
        let lines = stream::unfold(Feed::open(self, &selector, from), |mut feed| async move {
            let line = match feed.next().await {
                Told::Event(kind, _, object) => json!({"type": kind, "object": object}),
                Told::Synced(version) => json!({"type": "BOOKMARK", "object": {"metadata":
                    {"resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}}),
                Told::Bookmark(version) => json!({"type": "BOOKMARK", "object": {"metadata":
                    {"resourceVersion": version.to_string()}}}),
                Told::Gone => json!({"type": "ERROR", "object": {"code": 410, "message": "too old"}}),
                Told::End(End::Orderly) => return None,
                Told::End(End::Broken) => return Some((Err(BoxError::from("connection reset")), feed)),
            };
            Some((Ok(Frame::data(Bytes::from(format!("{line}\n")))), feed))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }

    fn list(&self, selector: &str) -> Response<FakeBody> {
        // What a watch would begin with, but not one.
        let mut feed = Feed::open(self, selector, None);
        let mut items: Vec<Value> = Vec::new();
        let version = loop {
            match feed.ready() {
                Some(Told::Event(_, _, object)) => items.push(object),
                Some(Told::Synced(version)) => break version,
                other => unreachable!("{other:?}"),
            }
        };
        if let Some(asked) = self.world.lock().asked.last_mut() {
            *asked = "list".to_owned();
        }
        answer(StatusCode::OK, &json!({"metadata": {"resourceVersion": version.to_string()}, "items": items}))
    }
}

fn status(code: StatusCode, reason: &str) -> Response<FakeBody> {
    answer(code, &json!({"kind": "Status", "apiVersion": "v1", "code": code.as_u16(), "reason": reason}))
}

fn answer(code: StatusCode, body: &Value) -> Response<FakeBody> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.boxed_unsync())
        .unwrap()
}
