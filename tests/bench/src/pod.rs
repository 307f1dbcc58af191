//! The pod that all loads work with: about 2.9 KB of JSON in etcd, as real ones have.

use bytes::Bytes;
use serde_json::{Value, json};

/// Where the pods live.
pub(crate) const NAMESPACE: &str = "bench";

/// Stands for a pod's number where its digits go; as wide as they are.
const NUMBER: &str = "######";
/// Bytes of the body. The server adds about 700 of defaults and metadata.
const BODY: usize = 2200;
/// Bytes of the finished object.
const OBJECT: usize = 2900;

/// A body in which only the number is written for each pod.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    text: Vec<u8>,
    numbers: Vec<usize>,
}

impl Template {
    fn new(text: &str) -> Template {
        let numbers = text.match_indices(NUMBER).map(|(at, _)| at).collect();
        Template { text: text.as_bytes().to_vec(), numbers }
    }

    /// What is posted to create a pod.
    pub(crate) fn body() -> Template {
        Template::new(&pod(BODY).to_string())
    }

    /// What etcd holds of a pod, in size.
    pub(crate) fn object() -> Template {
        Template::new(&pod(OBJECT).to_string())
    }

    pub(crate) fn of(&self, index: u32) -> Bytes {
        let mut text = self.text.clone();
        let number = number(index);
        for at in &self.numbers {
            text[*at..at + NUMBER.len()].copy_from_slice(number.as_bytes());
        }
        text.into()
    }
}

/// The number of a pod, in digits of one width.
fn number(index: u32) -> String {
    let number = format!("{index:06}");
    assert!(number.len() == NUMBER.len(), "a million pods need wider numbers");
    number
}

/// The name of a pod.
pub(crate) fn name(index: u32) -> String {
    format!("pod-{}", number(index))
}

fn pod(size: usize) -> Value {
    let env: Vec<Value> =
        (0..12).map(|i| json!({"name": format!("SETTING_{i}"), "value": "x".repeat(48)})).collect();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("pod-{NUMBER}"),
            "labels": {"app": "bench", "index": NUMBER, "team": "platform"},
            "annotations": {"bench.keelson.dev/padding": ""},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "nodeSelector": {"bench.keelson.dev/nowhere": "true"},
            "containers": [{
                "name": "main",
                "image": "registry.example.org/team/application:v1.2.3",
                "command": ["/usr/local/bin/application", "--verbose", "--config=/etc/application/config.yaml"],
                "env": env,
                "ports": [{"containerPort": 8080, "name": "http"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            }],
        },
    });
    let missing = size.saturating_sub(pod.to_string().len());
    pod["metadata"]["annotations"]["bench.keelson.dev/padding"] = Value::String("p".repeat(missing));
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_give_pods_of_the_wanted_size() {
        for (template, size) in [(Template::body(), BODY), (Template::object(), OBJECT)] {
            let text = template.of(4711);
            assert_eq!(text.len(), size);
            let pod: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(pod["metadata"]["name"], name(4711));
            assert_eq!(pod["metadata"]["labels"]["index"], "004711");
        }
    }
}
