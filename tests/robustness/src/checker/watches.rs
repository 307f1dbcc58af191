//! Watches: each stream is etcd's changes after its start, through its selector, in order, none left out, none twice.

mod stream;

use super::{Context, Property, numbered};
use crate::history::{Record, Revision, Sent, WatchOpened};
use std::collections::BTreeMap;
use stream::Stream;

pub(super) fn check(context: &mut Context<'_>) {
    let settled = numbered(context.records).find_map(|(line, record)| match record {
        Record::Settled { revision, .. } => Some((line, *revision)),
        _ => None,
    });
    let mut streams: BTreeMap<u64, Stream<'_>> = BTreeMap::new();
    for (line, record) in numbered(context.records) {
        match record {
            Record::WatchOpened(opened) => {
                streams.insert(opened.stream, Stream::new(line, opened));
            }
            Record::Received(received) => {
                if let Some(stream) = streams.get_mut(&received.stream) {
                    stream.receive(context, line, &received.sent);
                }
            }
            _ => {}
        }
    }
    let mut last_of_watcher: BTreeMap<u32, Stream<'_>> = BTreeMap::new();
    for (_, stream) in streams {
        stream.close(context);
        last_of_watcher.insert(stream.opened.watcher, stream);
    }
    if let Some((line, revision)) = settled {
        for stream in last_of_watcher.values() {
            stalled(context, stream, line, revision);
        }
    }
}

/// After faults and writes are over, whoever watches hears of everything.
fn stalled(context: &mut Context<'_>, stream: &Stream<'_>, line: usize, revision: Revision) {
    let owed = match stream.position() {
        Some(position) => {
            let changes = context.truth.after(position).iter();
            let mut changes = changes.take_while(|entry| entry.change.revision <= revision);
            changes
                .find(|entry| entry.event(&stream.opened.scope).is_some())
                .map(|entry| entry.change.revision)
        }
        None => Some(revision),
    };
    if let Some(owed) = owed {
        let detail = format!("{} did not hear of {owed}", describe(stream.opened));
        context.accuse(Property::StalledWatch, &[stream.line, line], detail);
    }
}

fn describe(opened: &WatchOpened) -> String {
    let WatchOpened { stream, watcher, server, scope, start, grpc, .. } = opened;
    let over = if *grpc { "gRPC" } else { "HTTP" };
    format!("{over} watch {stream} of {scope:?}, {start:?} (watcher {watcher}, server {server})")
}

/// What was sent, in short.
fn short(sent: &Sent) -> String {
    match sent {
        Sent::Event { kind, item } => {
            let version = &item.version;
            format!("{kind:?} {}/{} at {} ({})", item.namespace, item.name, version.revision, version.write)
        }
        other => format!("{other:?}"),
    }
}
