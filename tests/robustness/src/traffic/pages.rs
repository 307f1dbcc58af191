//! Lists in pages: one chain of `continue` after the other, also past a compaction.

use super::client::{Client, listed};
use super::{objects, outcome};
use crate::history::{Freshness, List, Outcome, Page, Record, Scope, Selector};
use http::Method;
use serde_json::Value;

/// Few, so that chains are long.
const LIMIT: u32 = 2;

impl Client {
    /// Reads a scope page by page.
    pub(super) async fn pages(&mut self, scope: &Scope) {
        let mut page = Page { chain: self.shared.id(), number: 0, restarted_after: None };
        let mut token = String::new();
        let mut last = (String::new(), String::new());
        loop {
            let call = self.shared.recorder.now();
            let path = format!("{}limit={LIMIT}&continue={token}", objects::path(scope));
            let Some(answer) = self.ask(Method::GET, &path, None, None).await else { return };
            let list = List {
                client: self.number,
                server: self.server,
                scope: scope.clone(),
                freshness: Freshness::Consistent,
                page: Some(page.clone()),
                call,
                answer: self.shared.recorder.now(),
                outcome: outcome(&answer, listed),
            };
            self.shared.recorder.record(&Record::List(list.clone()));
            let metadata = answer.map_or(Value::Null, |answer| answer.body["metadata"].clone());
            let next = metadata["continue"].as_str().unwrap_or_default().to_owned();
            page.restarted_after = None;
            match list.outcome {
                Outcome::Done(listed) => {
                    if let Some(item) = listed.items.last() {
                        last = (item.namespace.clone(), item.name.clone());
                    }
                }
                // The rest as it is now, which the server offers instead. With a selector nobody can say from where:
                // what did not match before may do so now.
                Outcome::Refused { code: 410, .. } if scope.selector == Selector::Everything => {
                    page.restarted_after = Some(last.clone());
                }
                _ => return,
            }
            if next.is_empty() {
                return;
            }
            token = next;
            page.number += 1;
        }
    }
}
