//! Elections between electors that share a lease, on a clock in hand.

use k8s_openapi::api::coordination::v1::LeaseSpec;

use super::*;

/// A lease that several electors write, with the server's check of resource versions.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    fn write(&mut self, mut lease: Lease, create: bool) -> Result<Lease, ()> {
        let current = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if create && self.lease.is_some() || !create && lease.metadata.resource_version != current {
            return Err(());
        }
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Ok(lease)
    }

    fn spec(&self) -> LeaseSpec {
        self.lease.clone().unwrap().spec.unwrap()
    }
}

fn elector(identity: &str) -> Elector {
    Elector::new(&LeaderElectionConfig { identity: identity.to_owned(), ..LeaderElectionConfig::new("test") })
}

/// One attempt, as `Candidate::attempt` makes it.
fn attempt(elector: &mut Elector, server: &mut Server, now: Instant) -> bool {
    if !elector.knows_lease() {
        elector.observe(server.lease.clone(), now);
    }
    // Any time will do that is another at each write.
    let wall = Timestamp::from_second(i64::try_from(server.version).unwrap()).unwrap();
    let written = match elector.decide(now, wall) {
        Decision::Wait => return false,
        Decision::Create(lease) => server.write(lease, true),
        Decision::Update(lease) => server.write(lease, false),
    };
    match written {
        Ok(lease) => {
            elector.written(lease, now);
            true
        }
        Err(()) => {
            elector.forget_lease();
            false
        }
    }
}

#[test]
fn one_leads_and_the_other_takes_over_when_it_stops_renewing() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut server = Server::default();
    let (mut a, mut b) = (elector("a"), elector("b"));
    assert!(attempt(&mut a, &mut server, at(0)));
    assert_eq!(server.spec().lease_duration_seconds, Some(15));
    assert!(!attempt(&mut b, &mut server, at(1)));
    for second in (2..60).step_by(2) {
        assert!(attempt(&mut a, &mut server, at(second)), "renews");
        assert!(!attempt(&mut b, &mut server, at(second)));
    }
    assert_eq!(server.spec().lease_transitions, Some(0));
    // a is stopped after its renewal at 58, which b saw at 58.
    assert!(!attempt(&mut b, &mut server, at(73)));
    assert!(attempt(&mut b, &mut server, at(74)));
    assert_eq!(
        (server.spec().holder_identity.as_deref(), server.spec().lease_transitions),
        (Some("b"), Some(1))
    );
    // a goes on: its own deadline passed long before, and the lease says so, too.
    assert!(a.deadline().is_some_and(|deadline| deadline < at(74)));
    assert!(!attempt(&mut a, &mut server, at(75)), "its resource version is outdated");
    assert!(!attempt(&mut a, &mut server, at(75)));
    assert!(!a.leads());
}

#[test]
fn the_wait_for_a_silent_leader_starts_when_it_is_first_seen() {
    let start = Instant::now();
    let mut server = Server::default();
    let (mut a, mut b) = (elector("a"), elector("b"));
    assert!(attempt(&mut a, &mut server, start));
    // b starts an hour later: it cannot know how old the lease is by its own clock.
    let late = start + Duration::from_secs(3600);
    assert!(!attempt(&mut b, &mut server, late));
    assert!(!attempt(&mut b, &mut server, late + Duration::from_secs(15)));
    assert!(attempt(&mut b, &mut server, late + Duration::from_secs(16)));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let now = Instant::now();
    let mut server = Server::default();
    let (mut a, mut b) = (elector("a"), elector("b"));
    assert!(attempt(&mut a, &mut server, now));
    let lease = a.release(Timestamp::UNIX_EPOCH).unwrap();
    server.write(lease, false).unwrap();
    assert!(!a.leads() && a.release(Timestamp::UNIX_EPOCH).is_none());
    assert!(attempt(&mut b, &mut server, now));
    assert_eq!(server.spec().lease_transitions, Some(1));
}

#[test]
fn of_two_that_see_a_free_lease_one_gets_it() {
    let now = Instant::now();
    let mut server = Server::default();
    let (mut a, mut b) = (elector("a"), elector("b"));
    a.observe(None, now);
    b.observe(None, now);
    assert!(attempt(&mut a, &mut server, now));
    assert!(!attempt(&mut b, &mut server, now));
    assert!(!attempt(&mut b, &mut server, now));
}

#[tokio::test]
async fn nothing_of_the_leader_runs_past_the_deadline() {
    let fence = Fence::closed();
    assert_eq!(fenced(fence.clone(), Box::pin(async { 1 })).await, None);
    fence.open_until(Instant::now() + Duration::from_secs(60));
    assert_eq!(fenced(fence.clone(), Box::pin(async { 1 })).await, Some(1));
    // A stop of the process, as the fence sees it: the deadline is past when the task goes on.
    let stopped = fence.clone();
    let task = Box::pin(async move {
        stopped.close();
        tokio::task::yield_now().await;
        panic!("acted after its time");
    });
    assert_eq!(fenced::<()>(fence, task).await, None);
}

#[test]
fn flags_that_cannot_work_are_refused() {
    let args = |lease, deadline, retry| LeaderElectionArgs {
        leader_elect: true,
        leader_elect_lease_duration: Duration::from_secs(lease),
        leader_elect_renew_deadline: Duration::from_secs(deadline),
        leader_elect_retry_period: Duration::from_secs(retry),
        leader_elect_resource_lock: "leases".into(),
        leader_elect_resource_name: None,
        leader_elect_resource_namespace: "kube-system".into(),
    };
    assert!(args(15, 10, 2).config("x").is_ok_and(|config| config.is_some()));
    for (lease, deadline, retry) in [(10, 10, 2), (15, 2, 2), (15, 10, 0), (0, 10, 2)] {
        assert!(args(lease, deadline, retry).config("x").is_err(), "{lease} {deadline} {retry}");
    }
}
