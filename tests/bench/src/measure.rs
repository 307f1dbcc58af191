//! Which loads are run, in which order, on which servers.

use crate::args::Args;
use crate::bare_etcd::{self, Access};
use crate::figures::{Figure, Group};
use crate::lists;
use crate::operations::{self, Operation};
use crate::pod::NAMESPACE;
use crate::samples::Samples;
use crate::server::Server;
use crate::watches::{self, Transport};
use anyhow::Result;
use harness::etcd::Etcd;
use std::path::Path;
use std::time::Duration;

/// A server has come to rest after this long.
const REST: Duration = Duration::from_secs(10);
/// Idle CPU is measured over this long.
const IDLE: Duration = Duration::from_secs(30);
/// A pod is so often got, and each kind of list so often made.
const GETS: u32 = 10;
const LISTS: u32 = 15;
const LARGE_LISTS: u32 = 3;
/// Lists that find nothing are short.
const EMPTY_LISTS: u32 = 100;

/// The groups that need pods, in the order in which they run.
const LOADED: [Group; 6] =
    [Group::Create, Group::Get, Group::List, Group::Fanout, Group::Delete, Group::Peak];

/// Measures all that is wanted. What has been measured before an error stays in `samples`. The floor, if there is one, is
/// measured in turns with the server, since machines change from one minute to the next.
pub(crate) fn all(
    args: &Args,
    program: &Path,
    samples: &mut Samples,
    mut floor: Option<(&Path, &mut Samples)>,
) -> Result<()> {
    for run in 1..=args.runs {
        eprintln!("run {run} of {}", args.runs);
        if args.wants(Group::Etcd) {
            bare_etcd(args, samples)?;
        }
        if args.wants_any(&[Group::Start, Group::Idle]) || args.wants_any(&LOADED) {
            session(args, program, samples)?;
        }
        if let Some((program, samples)) = &mut floor
            && args.wants_any(&LOADED)
        {
            say("the floor");
            let etcd = Etcd::start()?;
            let server = start(program, &etcd)?;
            server.make_namespace(NAMESPACE)?;
            load(args, &server, samples)?;
        }
        if args.wants(Group::Watches) {
            idle_watches(args, program, samples)?;
        }
        if args.wants(Group::WatchTransports) {
            watch_transports(args, program, samples)?;
        }
    }
    if args.wants(Group::Large) {
        large(args, program, samples)?;
    }
    Ok(())
}

fn bare_etcd(args: &Args, samples: &mut Samples) -> Result<()> {
    say("bare etcd");
    let (pods, clients) = (args.load.pods, args.load.clients);
    let etcd = Etcd::start()?;
    let puts = bare_etcd::run(&etcd, clients, Access::Create, pods, pods)?;
    samples.add_rate(Figure::EtcdPuts, pods.into(), puts.time);
    let gets = bare_etcd::run(&etcd, clients, Access::Get, pods, pods * GETS)?;
    samples.add_rate(Figure::EtcdGets, (pods * GETS).into(), gets.time);
    Ok(())
}

/// One server from its start to its end.
fn session(args: &Args, program: &Path, samples: &mut Samples) -> Result<()> {
    let etcd = Etcd::start()?;
    let server = start(program, &etcd)?;
    samples.add_time(Figure::Start, server.start);
    if args.wants(Group::Idle) {
        say("idle");
        // What is measured here is doing nothing.
        std::thread::sleep(REST);
        samples.add(Figure::IdleMemory, server.memory()?.resident);
        samples.add(Figure::IdleCpu, server.cpu_over(IDLE)? * 100.0);
    }
    if args.wants_any(&LOADED) {
        server.make_namespace(NAMESPACE)?;
        load(args, &server, samples)?;
        samples.add(Figure::PeakMemory, server.memory()?.peak);
    }
    Ok(())
}

/// The load from create to delete. Peak memory is that of all of it.
fn load(args: &Args, server: &Server, samples: &mut Samples) -> Result<()> {
    let load = &args.load;
    let (pods, clients) = (load.pods, load.clients);
    let wants = |group| args.wants_any(&[group, Group::Peak]);
    say("create");
    let cost = operations::run(server, clients, Operation::Create, pods, pods)?;
    samples.add_rate(Figure::Create, pods.into(), cost.time);
    samples.add_share(Figure::CreateCpu, cost.server, pods.into());
    samples.add_share(Figure::CreateClientCpu, cost.client, pods.into());
    if wants(Group::Get) {
        say("get");
        let count = pods * GETS;
        let cost = operations::run(server, clients, Operation::Get, pods, count)?;
        samples.add_rate(Figure::Get, count.into(), cost.time);
        samples.add_share(Figure::GetCpu, cost.server, count.into());
        samples.add_share(Figure::GetClientCpu, cost.client, count.into());
    }
    if wants(Group::List) {
        say("list");
        let consistent = lists::list(server, "", pods, LISTS)?;
        samples.add_time(Figure::ListConsistent, consistent.time);
        samples.add_time(Figure::ListCpu, consistent.cpu);
        samples.add_time(Figure::ListCached, lists::list(server, "?resourceVersion=0", pods, LISTS)?.time);
        samples.add_time(Figure::ListNone, lists::list(server, lists::NONE, 0, EMPTY_LISTS)?.time);
    }
    if wants(Group::Fanout) {
        say("fan-out");
        let events = u64::from(load.watchers) * u64::from(load.patches);
        let cost = watches::fan_out(server, load, pods, Transport::Http)?;
        samples.add_rate(Figure::Fanout, events, cost.time);
        samples.add_share(Figure::FanoutCpu, cost.server, events);
        samples.add_share(Figure::FanoutClientCpu, cost.client, events);
    }
    if wants(Group::Delete) {
        say("delete");
        let cost = operations::run(server, clients, Operation::Delete, pods, pods)?;
        samples.add_rate(Figure::Delete, pods.into(), cost.time);
        samples.add_share(Figure::DeleteCpu, cost.server, pods.into());
    }
    Ok(())
}

fn idle_watches(args: &Args, program: &Path, samples: &mut Samples) -> Result<()> {
    let etcd = Etcd::start()?;
    let server = start(program, &etcd)?;
    server.make_namespace(NAMESPACE)?;
    say("watches at rest");
    let count = args.load.watches;
    let idle = watches::idle(&server, count)?;
    samples.add_rate(Figure::WatchOpen, count.into(), idle.opening);
    samples.add(Figure::WatchMemory, idle.memory);
    samples.add_time(Figure::WatchDelivery, idle.delivery);
    Ok(())
}

/// The same fan-out over both transports, over the same etcd, each with a server that has done nothing else.
fn watch_transports(args: &Args, program: &Path, samples: &mut Samples) -> Result<()> {
    let load = &args.load;
    let etcd = Etcd::start()?;
    let server = start(program, &etcd)?;
    server.make_namespace(NAMESPACE)?;
    say("create");
    operations::run(&server, load.clients, Operation::Create, load.pods, load.pods)?;
    drop(server);
    let events = u64::from(load.watchers) * u64::from(load.patches);
    for (transport, rate, cpu, memory) in [
        (Transport::Http, Figure::HttpEvents, Figure::HttpCpu, Figure::HttpMemory),
        (Transport::Grpc, Figure::GrpcEvents, Figure::GrpcCpu, Figure::GrpcMemory),
    ] {
        let server = start(program, &etcd)?;
        if !transport.is_offered(&server)? {
            say(&format!("no {transport:?} here"));
            continue;
        }
        say(&format!("fan-out over {transport:?}"));
        let cost = watches::fan_out(&server, load, load.pods, transport)?;
        samples.add_rate(rate, events, cost.time);
        samples.add_time(cpu, cost.server);
        samples.add(memory, server.memory()?.peak);
    }
    Ok(())
}

/// As many pods as a cluster may have.
fn large(args: &Args, program: &Path, samples: &mut Samples) -> Result<()> {
    let load = &args.load;
    let (pods, clients) = (load.large_pods, load.clients);
    // etcd's own limits are 2 GiB of data, and a log of 100,000 writes in memory.
    let etcd = Etcd::start_with(&["--quota-backend-bytes=8589934592", "--snapshot-count=10000"])?;
    let server = start(program, &etcd)?;
    server.make_namespace(NAMESPACE)?;
    say("large: create");
    let cost = operations::run(&server, clients, Operation::Create, pods, pods)?;
    samples.add_rate(Figure::LargeCreate, pods.into(), cost.time);
    say("large: get");
    let cost = operations::run(&server, clients, Operation::Get, pods, pods)?;
    samples.add_rate(Figure::LargeGet, pods.into(), cost.time);
    samples.add(Figure::LargeMemory, server.settled_memory()?.resident);
    say("large: list");
    samples.add_time(Figure::LargeList, lists::list(&server, "", pods, LARGE_LISTS)?.time);
    samples.add_time(Figure::LargeListNone, lists::list(&server, lists::NONE, 0, LISTS)?.time);
    say("large: watch from the initial state");
    samples.add_time(Figure::LargeWatchList, watches::initial_events(&server, pods)?);
    say("large: fan-out");
    let cost = watches::fan_out(&server, load, pods, Transport::Http)?;
    let events = u64::from(load.watchers) * u64::from(load.patches);
    samples.add_rate(Figure::LargeFanout, events, cost.time);
    samples.add(Figure::LargePeak, server.memory()?.peak);
    Ok(())
}

fn start(program: &Path, etcd: &Etcd) -> Result<Server> {
    say("start");
    let server = Server::start(program, etcd)?;
    say(&format!("kube-apiserver is process {}, etcd {}", server.pid(), etcd.pid()));
    Ok(server)
}

fn say(what: &str) {
    eprintln!("    {what}");
}
