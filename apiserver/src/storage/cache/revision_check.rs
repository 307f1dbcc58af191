//! Etcd's present revision, asked for once on behalf of everybody who waits.
//!
//! A read that must be fresh needs a revision that etcd had after the read began. Readers that come while a question is
//! under way wait for the next one, which serves them all.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::storage::StorageError;
use crate::storage::etcd::Etcd;

type Answer = oneshot::Sender<Option<i64>>;

/// Asks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RevisionCheck {
    questions: mpsc::UnboundedSender<Answer>,
}

impl RevisionCheck {
    /// Starts the task that asks etcd; it ends when the last handle is dropped.
    pub(crate) fn start(etcd: Etcd, patience: Duration) -> Self {
        let (questions, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(etcd, patience, receiver));
        Self { questions }
    }

    /// A revision that etcd had, with a quorum, after this was called.
    pub(crate) async fn revision(&self) -> Result<i64, StorageError> {
        let (answer, revision) = oneshot::channel();
        // A task that is gone drops the answer, which is seen below.
        let _ = self.questions.send(answer);
        match revision.await {
            Ok(Some(revision)) => Ok(revision),
            Ok(None) | Err(_) => Err(StorageError::Unavailable("etcd does not tell its revision".to_owned())),
        }
    }
}

async fn run(etcd: Etcd, patience: Duration, mut questions: mpsc::UnboundedReceiver<Answer>) {
    while let Some(first) = questions.recv().await {
        let mut waiting = vec![first];
        while let Ok(more) = questions.try_recv() {
            waiting.push(more);
        }
        let revision = match tokio::time::timeout(patience, etcd.revision()).await {
            Ok(Ok(revision)) => Some(revision),
            Ok(Err(error)) => {
                tracing::debug!(%error, "etcd does not tell its revision");
                None
            }
            Err(_) => None,
        };
        for answer in waiting {
            // Whoever has given up waiting needs no answer.
            let _ = answer.send(revision);
        }
    }
}
