//! Does the faults, one schedule after its own pace, and records each.

use super::etcd_control::{self, patiently};
use super::schedule::{Drawn, Fault, Schedule};
use super::watch_gate::WatchGate;
use crate::history::{self, Record, Recorder};
use crate::setup::{Server, Setup};
use crate::traffic::Target;
use anyhow::{Context as _, Result};
use harness::proxy::Proxy;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Enough for etcd to do what it was asked.
const UNANSWERED: Duration = Duration::from_millis(150);

/// What faults are done to.
#[derive(Debug, Clone)]
pub struct Faults {
    pub setup: Arc<Setup>,
    pub target: Arc<Target>,
    pub recorder: Recorder,
    /// What may be compacted.
    pub recorded: Arc<AtomicI64>,
    pub stop: CancellationToken,
    /// The kinds that were done so far.
    pub done: Arc<Mutex<HashSet<Fault>>>,
}

/// What came of a fault.
enum Attempt {
    /// Done, and to whom.
    Done(String),
    /// It could not be done: other faults are under way.
    NotDone(anyhow::Error),
}

/// Does one fault after the other until told to stop. A fault that has begun is healed before this returns.
///
/// # Errors
/// A program does not come back.
pub async fn inject(faults: &Faults, schedule: Schedule) -> Result<()> {
    for drawn in schedule {
        let pausing = tokio::time::sleep(drawn.pause);
        if faults.stop.run_until_cancelled(pausing).await.is_none() {
            break;
        }
        let begin = faults.recorder.now();
        let attempt = faults.fault(drawn).await.with_context(|| format!("{:?}", drawn.fault))?;
        let (done, detail) = match attempt {
            Attempt::Done(detail) => (true, detail),
            Attempt::NotDone(error) => (false, format!("{error:#}")),
        };
        if done {
            faults.done.lock().insert(drawn.fault);
        }
        faults.recorder.record(&Record::Fault(history::Fault {
            begin,
            end: faults.recorder.now(),
            kind: format!("{:?}", drawn.fault),
            done,
            detail,
        }));
    }
    Ok(())
}

impl Faults {
    async fn fault(&self, drawn: Drawn) -> Result<Attempt> {
        let number = drawn.choice % self.setup.servers.len();
        let server = &self.setup.servers[number];
        let at = format!("server {number}");
        match drawn.fault {
            Fault::KillServer | Fault::PauseServer => self.server_process(drawn, number).await?,
            Fault::KillMember | Fault::EtcdDown => return self.members(drawn).await.map(Attempt::Done),
            Fault::PauseLeader | Fault::LaggingMember => {
                let leader = patiently(async || etcd_control::leader(&self.setup.endpoints).await).await;
                return match leader {
                    Ok((leader, _)) => self.paused_member(drawn, leader, server).await.map(Attempt::Done),
                    Err(error) => Ok(Attempt::NotDone(error)),
                };
            }
            Fault::FreezeClients => {
                server.front.freeze();
                tokio::time::sleep(drawn.lasts).await;
                server.front.cut();
                server.front.thaw();
            }
            Fault::CutClients => server.front.cut(),
            Fault::LoseAnswers => {
                server.back.iter().for_each(Proxy::mute);
                tokio::time::sleep(UNANSWERED).await;
                server.back.iter().for_each(Proxy::cut);
                server.back.iter().for_each(Proxy::thaw);
            }
            Fault::Partition => self.broken(drawn, server, Proxy::refuse).await,
            Fault::FreezeEtcd => self.broken(drawn, server, Proxy::freeze).await,
            Fault::DelayEtcd => self.broken(drawn, server, |proxy| proxy.delay(drawn.lasts / 10)).await,
            Fault::FreezeWatches => {
                let gates = self.setup.servers.iter().flat_map(|server| &server.gates);
                gates.clone().for_each(WatchGate::freeze);
                tokio::time::sleep(drawn.lasts).await;
                gates.for_each(WatchGate::thaw);
                return Ok(Attempt::Done("the last server's".to_owned()));
            }
            Fault::MoveLeader | Fault::Compact | Fault::Defragment => return Ok(self.chore(drawn).await),
        }
        Ok(Attempt::Done(at))
    }

    async fn broken(&self, drawn: Drawn, server: &Server, breaking: impl Fn(&Proxy)) {
        server.back.iter().for_each(breaking);
        tokio::time::sleep(drawn.lasts).await;
        server.back.iter().for_each(Proxy::thaw);
    }

    async fn server_process(&self, drawn: Drawn, number: usize) -> Result<()> {
        let process = &self.setup.servers[number].process;
        if drawn.fault == Fault::PauseServer {
            process.lock().pause()?;
            tokio::time::sleep(drawn.lasts).await;
            return process.lock().resume();
        }
        process.lock().kill()?;
        tokio::time::sleep(drawn.lasts / 4).await;
        process.lock().restart()?;
        self.setup.wait_ready(&self.target, number).await
    }

    async fn members(&self, drawn: Drawn) -> Result<String> {
        let etcd = &self.setup.etcd;
        let size = etcd.lock().size();
        let down: Vec<usize> = match drawn.fault {
            Fault::EtcdDown => (0..size).collect(),
            _ => vec![drawn.choice % size],
        };
        for member in &down {
            etcd.lock().kill(*member)?;
        }
        tokio::time::sleep(drawn.lasts).await;
        for member in &down {
            etcd.lock().restart(*member)?;
        }
        Ok(format!("members {down:?}"))
    }

    async fn paused_member(&self, drawn: Drawn, leader: usize, server: &Server) -> Result<String> {
        let etcd = &self.setup.etcd;
        let lagging = drawn.fault == Fault::LaggingMember;
        // Another than the leader, if there is one.
        let member = if lagging { (leader + 1) % etcd.lock().size() } else { leader };
        etcd.lock().pause(member)?;
        tokio::time::sleep(drawn.lasts).await;
        if lagging {
            let others = server.back.iter().enumerate().filter(|(index, _)| *index != member);
            others.clone().for_each(|(_, proxy)| proxy.refuse());
            // Its questions are at the member's door when the member wakes.
            tokio::time::sleep(drawn.lasts).await;
            etcd.lock().resume(member)?;
            tokio::time::sleep(drawn.lasts).await;
            others.for_each(|(_, proxy)| proxy.thaw());
        } else {
            etcd.lock().resume(member)?;
        }
        Ok(format!("member {member}"))
    }

    async fn chore(&self, drawn: Drawn) -> Attempt {
        let endpoints = &self.setup.endpoints;
        let done = patiently(async || match drawn.fault {
            Fault::MoveLeader => etcd_control::move_leader(endpoints, drawn.choice).await,
            Fault::Defragment => {
                let member = drawn.choice % endpoints.len();
                etcd_control::defragment(&endpoints[member]).await.map(|()| format!("member {member}"))
            }
            _ => {
                let revision = self.recorded.load(Ordering::SeqCst);
                self.recorder.record(&Record::Compaction { call: self.recorder.now(), revision });
                etcd_control::compact(endpoints, revision).await.map(|()| format!("below {revision}"))
            }
        });
        done.await.map_or_else(Attempt::NotDone, Attempt::Done)
    }
}
