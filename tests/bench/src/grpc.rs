//! Watches over the gRPC watch service, many in one stream, which is how our daemons use it. Frames are read off HTTP/2
//! without a gRPC client: what that would take is taken from the server on the same cores.

use crate::client::{self, Connection};
use crate::pod::NAMESPACE;
use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use prost::Message;
use proto::watch_v1::watch_request::Request;
use proto::watch_v1::watch_response::Response;
use proto::watch_v1::{Open, WatchRequest, WatchResponse};

const METHOD: &str = "/keelson.watch.v1.Watch/Watch";

/// Whether the server has the service.
pub(crate) async fn is_offered(connection: &Connection) -> Result<bool> {
    Ok(connection.call(METHOD).await?.is_some())
}

/// A stream of watches, and what each of them has seen.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Closing it would tell the server that no more watches come.
    _requests: SendStream<Bytes>,
    responses: RecvStream,
    messages: Messages,
    seen: Vec<u64>,
}

impl Stream {
    /// Opens so many watches of the pods, from a revision on.
    pub(crate) async fn open(connection: &Connection, watches: u32, from: i64) -> Result<Stream> {
        let (mut requests, responses) =
            connection.call(METHOD).await?.context("the server has no gRPC watch")?;
        for id in 0..watches {
            let open = Open {
                watch_id: id.into(),
                version: "v1".to_owned(),
                resource: "pods".to_owned(),
                namespace: NAMESPACE.to_owned(),
                resource_version: from,
                ..Open::default()
            };
            requests.send_data(frame(&WatchRequest { request: Some(Request::Open(open)) })?, false)?;
        }
        let seen = vec![0; watches as usize];
        Ok(Stream { _requests: requests, responses, messages: Messages::default(), seen })
    }

    /// Reads on until each watch has seen so many events in all.
    pub(crate) async fn see(&mut self, wanted: u64) -> Result<()> {
        let mut waiting = self.seen.iter().filter(|seen| **seen < wanted).count();
        while waiting > 0 {
            let Some(data) = client::next(&mut self.responses).await? else {
                let trailers = self.responses.trailers().await?;
                bail!("the stream of watches ended: {trailers:?}");
            };
            self.messages.push(&data);
            while let Some(message) = self.messages.next()? {
                let seen = usize::try_from(message.watch_id).ok().and_then(|id| self.seen.get_mut(id));
                let seen = seen.with_context(|| format!("there is no watch {}", message.watch_id))?;
                match message.response {
                    Some(Response::Events(events)) => {
                        let before = *seen;
                        *seen += events.events.len() as u64;
                        waiting -= usize::from(before < wanted && *seen >= wanted);
                    }
                    Some(Response::Closed(closed)) => bail!("a watch was closed: {closed:?}"),
                    Some(Response::Synced(_) | Response::Bookmark(_)) | None => {}
                }
            }
        }
        Ok(())
    }
}

/// A message as gRPC frames it: not compressed, its length, itself.
fn frame(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEADER + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length)?);
    message.encode(&mut frame)?;
    Ok(frame.freeze())
}

const HEADER: usize = 5;

/// Finds the messages in a stream that comes in pieces.
#[derive(Debug, Default)]
struct Messages(BytesMut);

impl Messages {
    fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    fn next(&mut self) -> Result<Option<WatchResponse>> {
        let Some((header, _)) = self.0.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [compressed, length @ ..] = *header;
        ensure!(compressed == 0, "a compressed message, which was not asked for");
        let length = u32::from_be_bytes(length) as usize;
        if self.0.len() < HEADER + length {
            return Ok(None);
        }
        self.0.advance(HEADER);
        Ok(Some(WatchResponse::decode(self.0.split_to(length).freeze())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::watch_v1::{Event, Events};

    #[test]
    fn messages_are_found_wherever_the_pieces_end() {
        let events = Events { events: vec![Event { resource_version: 7, ..Event::default() }; 3] };
        let sent: Vec<WatchResponse> = (0..4)
            .map(|id| WatchResponse { watch_id: id, response: Some(Response::Events(events.clone())) })
            .collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|message| frame(message).unwrap()).collect();
        for size in 1..=bytes.len() {
            let (mut messages, mut received) = (Messages::default(), Vec::new());
            for piece in bytes.chunks(size) {
                messages.push(piece);
                while let Some(message) = messages.next().unwrap() {
                    received.push(message);
                }
            }
            assert_eq!(received, sent, "pieces of {size}");
        }
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut messages = Messages::default();
        messages.push(&[1, 0, 0, 0, 0]);
        assert!(messages.next().is_err());
    }
}
