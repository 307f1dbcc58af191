//! The fake apiserver's watch service.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::stream::{BoxStream, StreamExt as _, poll_fn};
use proto::watch_v1::{
    Bookmark, Closed, Event, EventType, Events, Open, Synced, WatchRequest, WatchResponse,
    watch_request::Request as Asked, watch_response::Response as Answer, watch_server::Watch,
};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};
use tonic::{Request, Response, Status, Streaming};

use super::fake::{End, Fake, Feed, Told};

type Sender = mpsc::UnboundedSender<Result<WatchResponse, Status>>;

#[derive(Default)]
struct Window {
    left: AtomicI64,
    wider: Notify,
}

#[tonic::async_trait]
impl Watch for Fake {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.world.lock().asked.push("stream".to_owned());
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(serve(self.clone(), request.into_inner(), sender));
        Ok(Response::new(poll_fn(move |context| receiver.poll_recv(context)).boxed()))
    }
}

async fn serve(fake: Fake, mut requests: Streaming<WatchRequest>, sender: Sender) {
    let mut watches: HashMap<u64, (AbortHandle, Arc<Window>)> = HashMap::new();
    // Watches of an ended stream end with it.
    let mut end = Feed::open(&fake, "on=nothing", Some(i64::MAX));
    {
        let mut world = fake.world.lock();
        world.asked.pop();
    }
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            told = end.next() => {
                if matches!(told, Told::End(End::Broken)) {
                    sender.send(Err(Status::unavailable("connection reset"))).unwrap();
                }
                break;
            }
        };
        let Ok(Some(request)) = request else { break };
        match request.request.unwrap() {
            Asked::Open(open) => {
                let window =
                    Arc::new(Window { left: AtomicI64::new(open.window_bytes.into()), ..Window::default() });
                let id = open.watch_id;
                let task = tokio::spawn(tell(fake.clone(), open, Arc::clone(&window), sender.clone()));
                assert!(
                    watches.insert(id, (task.abort_handle(), window)).is_none(),
                    "ids are not used twice"
                );
            }
            Asked::Cancel(cancel) => watches.remove(&cancel.watch_id).unwrap().0.abort(),
            Asked::Credit(credit) => {
                let (_, window) = &watches[&credit.watch_id];
                window.left.fetch_add(credit.bytes.into(), Ordering::SeqCst);
                window.wider.notify_one();
            }
        }
    }
    for (task, _) in watches.into_values() {
        task.abort();
    }
}

async fn tell(fake: Fake, open: Open, window: Arc<Window>, sender: Sender) {
    let answer = |answer| {
        // Fails when the client is gone.
        let _ = sender.send(Ok(WatchResponse { watch_id: open.watch_id, response: Some(answer) }));
    };
    let closed = |code: i32, message: &str| {
        answer(Answer::Closed(Closed { code, message: message.to_owned(), ..Closed::default() }));
    };
    if fake.world.lock().forbidden.as_ref() == Some(&open.label_selector) {
        fake.world.lock().asked.push("forbidden".to_owned());
        return closed(403, "forbidden");
    }
    let from = (open.resource_version != 0).then_some(open.resource_version);
    let mut feed = Feed::open(&fake, &open.label_selector, from);
    loop {
        while window.left.load(Ordering::SeqCst) <= 0 {
            window.wider.notified().await;
        }
        match feed.next().await {
            Told::Event(kind, resource_version, object) => {
                let r#type = EventType::from_str_name(kind).unwrap().into();
                let object = object.to_string();
                window.left.fetch_sub(i64::try_from(object.len()).unwrap(), Ordering::SeqCst);
                *fake.world.lock().sent.entry(open.label_selector.clone()).or_default() += object.len();
                let event = Event { r#type, resource_version, object: object.into() };
                answer(Answer::Events(Events { events: vec![event] }));
            }
            Told::Synced(resource_version) => answer(Answer::Synced(Synced { resource_version })),
            Told::Bookmark(resource_version) => answer(Answer::Bookmark(Bookmark { resource_version })),
            Told::Gone => return closed(410, "too old"),
            Told::End(_) => return,
        }
    }
}
