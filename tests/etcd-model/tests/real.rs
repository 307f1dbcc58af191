//! A real etcd behind the model's types.

use crate::operation::{Answer, Operation};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use etcd_client::{
    Client, CompactionOptions, Compare as RealCompare, CompareOp, DeleteOptions, GetOptions,
    LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
    WatchFilterType, WatchOptions, WatchRequestSender,
};
use etcd_model::{
    Compare, CompareOperator, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Event, EventType,
    KeyRange, KeyValue, LeaseGrantResponse, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long etcd may take for anything.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Real {
    client: Client,
    /// Dropped, it ends the process.
    etcd: harness::etcd::Etcd,
}

impl Real {
    pub(crate) async fn start() -> Result<Real> {
        let etcd = harness::etcd::Etcd::start()?;
        let client = Client::connect([etcd.endpoint()], None).await?;
        Ok(Real { client, etcd })
    }

    pub(crate) async fn version(&mut self) -> Result<String> {
        Ok(self.client.status().await?.version().to_owned())
    }

    pub(crate) async fn apply(&mut self, operation: &Operation) -> Result<Answer> {
        match Box::pin(self.try_apply(operation)).await {
            Err(etcd_client::Error::GRpcStatus(status)) => {
                Ok(Answer::Refused { code: status.code().into(), message: status.message().to_owned() })
            }
            answer => answer.with_context(|| format!("etcd at {} does not answer", self.etcd.endpoint())),
        }
    }

    async fn try_apply(&mut self, operation: &Operation) -> Result<Answer, etcd_client::Error> {
        let client = &mut self.client;
        Ok(match operation {
            Operation::Range(range) => Answer::Range(range_response(
                client.get(&range.keys.key[..], Some(get_options(range))).await?,
            )),
            Operation::Put(put) => Answer::Put(put_response(
                client.put(&put.key[..], &put.value[..], Some(put_options(put))).await?,
            )),
            Operation::DeleteRange(delete) => Answer::DeleteRange(delete_response(
                client.delete(&delete.keys.key[..], Some(delete_options(delete))).await?,
            )),
            Operation::Txn(txn) => Answer::Txn(txn_response(&client.txn(real_txn(txn)).await?)),
            Operation::Compact(at) => {
                let options = CompactionOptions::new().with_physical();
                Answer::Compact(revision(client.compact(*at, Some(options)).await?.header()))
            }
            Operation::LeaseGrant { id, ttl } => {
                let granted = client.lease_grant(*ttl, Some(LeaseGrantOptions::new().with_id(*id))).await?;
                let (id, ttl) = (granted.id(), granted.ttl());
                Answer::LeaseGrant(LeaseGrantResponse { revision: revision(granted.header()), id, ttl })
            }
            Operation::LeaseRevoke(id) => {
                Answer::LeaseRevoke(revision(client.lease_revoke(*id).await?.header()))
            }
            Operation::LeaseKeepAlive(id) => match client.lease_keep_alive(*id).await {
                Ok((mut keeper, mut stream)) => {
                    keeper.keep_alive().await?;
                    Answer::LeaseKeepAlive(stream.message().await?.map_or(0, |alive| alive.ttl()))
                }
                // So this client says that the time to live is 0.
                Err(etcd_client::Error::LeaseKeepAliveError(_)) => Answer::LeaseKeepAlive(0),
                Err(error) => return Err(error),
            },
            Operation::LeaseTimeToLive(id) => {
                let options = LeaseTimeToLiveOptions::new().with_keys();
                let lease = client.lease_time_to_live(*id, Some(options)).await?;
                let mut keys: Vec<Bytes> = lease.keys().iter().map(|key| key.clone().into()).collect();
                keys.sort();
                let (ttl, granted_ttl) = (lease.ttl(), lease.granted_ttl());
                Answer::LeaseTimeToLive(LeaseTimeToLiveResponse {
                    revision: revision(lease.header()),
                    ttl,
                    granted_ttl,
                    keys,
                })
            }
            Operation::Leases => {
                let mut ids: Vec<i64> =
                    client.leases().await?.leases().iter().map(etcd_client::LeaseStatus::id).collect();
                ids.sort_unstable();
                Answer::Leases(ids)
            }
        })
    }

    /// Opens a stream with its first watch, which etcd's client asks for.
    pub(crate) async fn open_stream(&mut self, first: &WatchCreateRequest) -> Result<RealStream> {
        let stream = self.client.watch(&first.keys.key[..], Some(watch_options(first))).await?;
        let (sender, mut responses) = stream.split();
        let (arrived, receiver) = mpsc::unbounded_channel();
        // Read all the time, so that etcd never finds the stream full.
        tokio::spawn(async move {
            while let Ok(Some(response)) = responses.message().await {
                if arrived.send(watch_response(&response)).is_err() {
                    return;
                }
            }
        });
        Ok(RealStream { sender, receiver })
    }
}

pub(crate) struct RealStream {
    sender: WatchRequestSender,
    receiver: mpsc::UnboundedReceiver<WatchResponse>,
}

impl RealStream {
    pub(crate) async fn watch(&mut self, request: &WatchCreateRequest) -> Result<()> {
        Ok(self.sender.watch(&request.keys.key[..], Some(watch_options(request))).await?)
    }

    pub(crate) async fn cancel(&mut self, id: i64) -> Result<()> {
        Ok(self.sender.cancel(id).await?)
    }

    pub(crate) async fn request_progress(&mut self) -> Result<()> {
        Ok(self.sender.request_progress().await?)
    }

    pub(crate) async fn next(&mut self) -> Result<WatchResponse> {
        match tokio::time::timeout(DEADLINE, self.receiver.recv()).await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => bail!("etcd has closed the watch stream"),
            Err(_) => bail!("nothing arrived on the watch stream for {DEADLINE:?}"),
        }
    }
}

fn get_options(range: &RangeRequest) -> GetOptions {
    let mut options = GetOptions::new()
        .with_revision(range.revision)
        .with_limit(range.limit)
        .with_min_mod_revision(range.min_mod_revision)
        .with_max_mod_revision(range.max_mod_revision)
        .with_min_create_revision(range.min_create_revision)
        .with_max_create_revision(range.max_create_revision);
    if range.count_only {
        options = options.with_count_only();
    }
    if range.keys_only {
        options = options.with_keys_only();
    }
    if range.keys.range_end.is_empty() { options } else { options.with_range(&range.keys.range_end[..]) }
}

fn put_options(put: &PutRequest) -> PutOptions {
    let options = PutOptions::new().with_lease(put.lease);
    if put.prev_kv { options.with_prev_key() } else { options }
}

fn delete_options(delete: &DeleteRangeRequest) -> DeleteOptions {
    let mut options = DeleteOptions::new();
    if delete.prev_kv {
        options = options.with_prev_key();
    }
    if delete.keys.range_end.is_empty() { options } else { options.with_range(&delete.keys.range_end[..]) }
}

fn watch_options(request: &WatchCreateRequest) -> WatchOptions {
    let mut options = WatchOptions::new().with_start_revision(request.start_revision);
    if request.prev_kv {
        options = options.with_prev_key();
    }
    if request.progress_notify {
        options = options.with_progress_notify();
    }
    let mut filters = Vec::new();
    if request.no_put {
        filters.push(WatchFilterType::NoPut);
    }
    if request.no_delete {
        filters.push(WatchFilterType::NoDelete);
    }
    options = options.with_filters(filters);
    if request.keys.range_end.is_empty() { options } else { options.with_range(&request.keys.range_end[..]) }
}

fn real_txn(txn: &TxnRequest) -> Txn {
    let operations = |ops: &[RequestOp]| ops.iter().map(real_op).collect::<Vec<_>>();
    Txn::new()
        .when(txn.compare.iter().map(real_compare).collect::<Vec<_>>())
        .and_then(operations(&txn.success))
        .or_else(operations(&txn.failure))
}

fn real_op(op: &RequestOp) -> TxnOp {
    match op {
        RequestOp::Range(range) => TxnOp::get(&range.keys.key[..], Some(get_options(range))),
        RequestOp::Put(put) => TxnOp::put(&put.key[..], &put.value[..], Some(put_options(put))),
        RequestOp::DeleteRange(delete) => TxnOp::delete(&delete.keys.key[..], Some(delete_options(delete))),
        RequestOp::Txn(txn) => TxnOp::txn(real_txn(txn)),
    }
}

fn real_compare(compare: &Compare) -> RealCompare {
    let operator = match compare.operator {
        CompareOperator::Equal => CompareOp::Equal,
        CompareOperator::Greater => CompareOp::Greater,
        CompareOperator::Less => CompareOp::Less,
        CompareOperator::NotEqual => CompareOp::NotEqual,
    };
    let KeyRange { key, range_end } = &compare.keys;
    let key = &key[..];
    let real = match &compare.target {
        CompareTarget::Version(version) => RealCompare::version(key, operator, *version),
        CompareTarget::CreateRevision(at) => RealCompare::create_revision(key, operator, *at),
        CompareTarget::ModRevision(at) => RealCompare::mod_revision(key, operator, *at),
        CompareTarget::Value(value) => RealCompare::value(key, operator, &value[..]),
        CompareTarget::Lease(lease) => RealCompare::lease(key, operator, *lease),
    };
    if range_end.is_empty() { real } else { real.with_range(&range_end[..]) }
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

fn key_value(kv: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(kv.key()),
        value: Bytes::copy_from_slice(kv.value()),
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

fn range_response(real: etcd_client::GetResponse) -> RangeResponse {
    RangeResponse {
        revision: revision(real.header()),
        kvs: real.kvs().iter().map(key_value).collect(),
        more: real.more(),
        count: real.count(),
    }
}

fn put_response(real: etcd_client::PutResponse) -> PutResponse {
    PutResponse { revision: revision(real.header()), prev_kv: real.prev_key().map(key_value) }
}

fn delete_response(real: etcd_client::DeleteResponse) -> DeleteRangeResponse {
    DeleteRangeResponse {
        revision: revision(real.header()),
        deleted: real.deleted(),
        prev_kvs: real.prev_kvs().iter().map(key_value).collect(),
    }
}

fn txn_response(real: &etcd_client::TxnResponse) -> TxnResponse {
    let responses = real.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Get(range) => ResponseOp::Range(range_response(range)),
        TxnOpResponse::Put(put) => ResponseOp::Put(put_response(put)),
        TxnOpResponse::Delete(delete) => ResponseOp::DeleteRange(delete_response(delete)),
        TxnOpResponse::Txn(txn) => ResponseOp::Txn(txn_response(&txn)),
    });
    TxnResponse {
        revision: revision(real.header()),
        succeeded: real.succeeded(),
        responses: responses.collect(),
    }
}

fn watch_response(real: &etcd_client::WatchResponse) -> WatchResponse {
    let event = |event: &etcd_client::Event| Event {
        kind: match event.event_type() {
            etcd_client::EventType::Put => EventType::Put,
            etcd_client::EventType::Delete => EventType::Delete,
        },
        kv: event.kv().map(key_value).unwrap_or_default(),
        prev_kv: event.prev_kv().map(key_value),
    };
    WatchResponse {
        watch_id: real.watch_id(),
        revision: revision(real.header()),
        created: real.created(),
        canceled: real.canceled(),
        compact_revision: real.compact_revision(),
        events: real.events().iter().map(event).collect(),
    }
}
