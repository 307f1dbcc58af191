//! Clients without a cache: one that watches with selectors, one that lists. Both change servers as they like.

use anyhow::{Result, ensure};
use rand::Rng;

use super::connection::{Arrived, Connection};
use super::net::Net;
use super::read::{self, Ask, Asked, Exact, Interest};
use super::truth::HistoryId;
use super::view::View;

/// Watches, from a consistent list on; resumes after what it has seen, lists anew only when told 410.
pub(super) struct Watcher {
    interest: Interest,
    server: usize,
    known: Option<(HistoryId, i64)>,
    state: Watching,
}

enum Watching {
    Nothing,
    Asking(Ask),
    Open(Box<Connection>),
}

impl Watcher {
    pub(super) fn new(net: &mut Net) -> Self {
        let interest = Interest::new(View::random(&mut net.rng));
        Self { interest, server: net.random_server(), known: None, state: Watching::Nothing }
    }

    pub(super) fn step(&mut self, net: &mut Net) -> Result<()> {
        self.state = match std::mem::replace(&mut self.state, Watching::Nothing) {
            Watching::Nothing => self.connect(net)?,
            Watching::Asking(ask) => match ask.poll(net, &self.interest)? {
                Asked::Pending(ask) => Watching::Asking(ask),
                Asked::Failed => Watching::Nothing,
                Asked::Fresh(snapshot, history) => {
                    read::page(net, &self.interest, &snapshot, history, None, usize::MAX)?;
                    self.known = Some((history, snapshot.revision));
                    Watching::Nothing
                }
            },
            Watching::Open(connection) => self.read(net, connection)?,
        };
        Ok(())
    }

    fn connect(&mut self, net: &mut Net) -> Result<Watching> {
        self.server = net.random_server();
        let Some((history, revision)) = self.known else {
            return Ok(Watching::Asking(Ask::begin(net, self.server)));
        };
        let history = net.truth.rebase(history, revision);
        if net.is_ambiguous(history, revision, self.server) {
            net.count("client restarted");
            self.known = None;
            return Ok(Watching::Nothing);
        }
        if !net.servers[self.server].caches.is_ready() {
            return Ok(Watching::Nothing);
        }
        let opened = Connection::open(net, self.server, &self.interest, (history, revision))?;
        if opened.is_none() {
            self.known = None;
        }
        Ok(opened.map_or(Watching::Nothing, |connection| Watching::Open(Box::new(connection))))
    }

    fn read(&mut self, net: &mut Net, mut connection: Box<Connection>) -> Result<Watching> {
        if net.disturbed && net.rng.random_bool(0.02) {
            return Ok(Watching::Nothing);
        }
        // Some read seldom.
        if net.disturbed && net.rng.random_bool(0.5) {
            return Ok(Watching::Open(connection));
        }
        let most = net.rng.random_range(1..10);
        let arrived = connection.read(net, &self.interest, most)?;
        self.known = Some(connection.known);
        Ok(match arrived {
            Arrived::Events { .. } => Watching::Open(connection),
            Arrived::Cut => Watching::Nothing,
            Arrived::Expired | Arrived::Ambiguous => {
                self.known = None;
                Watching::Nothing
            }
        })
    }

    /// Whether it has been told everything.
    pub(super) fn is_current(&self, net: &Net) -> bool {
        self.known == Some((net.truth.current(), net.truth.latest()))
            && matches!(self.state, Watching::Open(_))
    }

    pub(super) fn describe(&self) -> String {
        format!("watcher of {:?} knows {:?}", self.interest.view, self.known)
    }
}

/// Lists: consistently, whole or in pages that go on at another server, and what was at some revision.
pub(super) struct Lister {
    /// The newest consistent list so far.
    newest: (HistoryId, i64),
    state: Listing,
}

enum Listing {
    Nothing,
    Asking(Ask, Interest, usize),
    /// A list at a revision after some key, in pages of some size.
    Pages(Interest, (HistoryId, i64), String, usize),
}

impl Lister {
    pub(super) fn new() -> Self {
        Self { newest: (0, 0), state: Listing::Nothing }
    }

    pub(super) fn step(&mut self, net: &mut Net) -> Result<()> {
        self.state = match std::mem::replace(&mut self.state, Listing::Nothing) {
            Listing::Nothing => {
                let interest = Interest::new(View::random(&mut net.rng));
                let server = net.random_server();
                if net.rng.random_bool(0.3) {
                    self.past(net, &interest, server)?;
                    return Ok(());
                }
                let limit = if net.rng.random_bool(0.5) { usize::MAX } else { net.rng.random_range(1..4) };
                Listing::Asking(Ask::begin(net, server), interest, limit)
            }
            Listing::Asking(ask, interest, limit) => match ask.poll(net, &interest)? {
                Asked::Pending(ask) => Listing::Asking(ask, interest, limit),
                Asked::Failed => Listing::Nothing,
                Asked::Fresh(snapshot, history) => {
                    self.note((history, snapshot.revision), net)?;
                    let page = read::page(net, &interest, &snapshot, history, None, limit)?;
                    go_on(interest, (history, snapshot.revision), &page, limit)
                }
            },
            Listing::Pages(interest, (history, revision), after, limit) => {
                let at = (net.truth.rebase(history, revision), revision);
                let server = net.random_server();
                match read::exact(net, &interest, server, at, Some(&after), limit)? {
                    Exact::Page(page) => {
                        net.count("further page");
                        go_on(interest, at, &page, limit)
                    }
                    Exact::Expired | Exact::Failed => Listing::Nothing,
                }
            }
        };
        Ok(())
    }

    /// A list of what was at some revision, of which a client may have heard from anybody.
    fn past(&self, net: &mut Net, interest: &Interest, server: usize) -> Result<()> {
        let latest = net.truth.latest();
        let back = if net.rng.random_bool(0.7) { 15 } else { 200 };
        let revision = net.rng.random_range((latest - back).max(1)..=latest);
        let at = (net.truth.current(), revision);
        read::exact(net, interest, server, at, None, usize::MAX).map(drop)
    }

    /// Consistent lists of one client never go back, whichever server answers.
    fn note(&mut self, at: (HistoryId, i64), net: &Net) -> Result<()> {
        let (history, revision) = self.newest;
        let lives = at.0 == net.truth.current();
        if lives && net.truth.agree(history, at.0, revision) {
            ensure!(
                at.1 >= revision,
                "a client's lists go back from {revision} of history {history} to {at:?}"
            );
        }
        self.newest = at;
        Ok(())
    }
}

fn go_on(interest: Interest, at: (HistoryId, i64), page: &read::Page, limit: usize) -> Listing {
    match page.items.last() {
        Some((last, ..)) if page.more => Listing::Pages(interest, at, last.clone(), limit),
        _ => Listing::Nothing,
    }
}
