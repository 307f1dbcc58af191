//! Writes records as they happen, and reads objects into what a record keeps of them.

use super::{Instant, Record, Revision, Version};
use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where records go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    begun: std::time::Instant,
    file: Arc<Mutex<BufWriter<File>>>,
    count: Arc<AtomicUsize>,
}

impl Recorder {
    /// Begins a history; its clock starts now.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<Recorder> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Recorder {
            begun: std::time::Instant::now(),
            file: Arc::new(Mutex::new(BufWriter::with_capacity(1 << 20, file))),
            count: Arc::default(),
        })
    }

    /// The run's clock.
    pub fn now(&self) -> Instant {
        u64::try_from(self.begun.elapsed().as_micros()).expect("a run is shorter than an age")
    }

    /// Keeps a record.
    ///
    /// # Panics
    /// The disk is full: a history with holes would accuse the innocent.
    pub fn record(&self, record: &Record) {
        let mut line = serde_json::to_vec(record).expect("records are plain data");
        line.push(b'\n');
        self.file.lock().write_all(&line).expect("the history can be written");
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many records were kept.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The disk is full.
    pub fn flush(&self) -> Result<()> {
        Ok(self.file.lock().flush()?)
    }
}

/// What a record keeps of an object. `revision`: etcd's, for stored objects, which carry none themselves.
pub fn version_of(object: &Value, revision: Option<Revision>) -> Option<Version> {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Version {
        revision: match revision {
            Some(revision) => revision,
            None => metadata["resourceVersion"].as_str()?.parse().ok()?,
        },
        uid: text(&metadata["uid"]),
        write: text(&metadata["annotations"]["write"]),
        shade: text(&metadata["labels"]["shade"]),
        fingerprint: fingerprint(object),
    })
}

/// A hash of the object but for kind and apiVersion, which lists leave out, and resourceVersion, which etcd keeps beside.
pub fn fingerprint(object: &Value) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    let Value::Object(fields) = object else { return hash.0 };
    for (name, value) in sorted(fields, &["kind", "apiVersion"]) {
        hash.add(name.as_bytes());
        match value {
            Value::Object(metadata) if name == "metadata" => {
                for (name, value) in sorted(metadata, &["resourceVersion"]) {
                    hash.add(name.as_bytes());
                    hash.value(value);
                }
            }
            value => hash.value(value),
        }
    }
    hash.0
}

fn sorted<'a>(fields: &'a serde_json::Map<String, Value>, without: &[&str]) -> Vec<(&'a String, &'a Value)> {
    let mut fields: Vec<_> = fields.iter().filter(|(name, _)| !without.contains(&name.as_str())).collect();
    fields.sort_by_key(|(name, _)| *name);
    fields
}

/// FNV-1a: the same in every build, since histories are kept.
struct Fnv(u64);

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        // A mark between parts, so that moving a byte from one to the next is seen.
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                self.add(b"{");
                for (name, value) in sorted(fields, &[]) {
                    self.add(name.as_bytes());
                    self.value(value);
                }
                self.add(b"}");
            }
            Value::Array(items) => {
                self.add(b"[");
                items.iter().for_each(|item| self.value(item));
                self.add(b"]");
            }
            plain => self.add(plain.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fingerprints_see_content_only() {
        let stored = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "uid": "u"}, "data": {"k": "v"}});
        let listed =
            json!({"data": {"k": "v"}, "metadata": {"resourceVersion": "7", "uid": "u", "name": "a"}});
        assert_eq!(fingerprint(&stored), fingerprint(&listed));
        let other = json!({"data": {"k": "w"}, "metadata": {"uid": "u", "name": "a"}});
        assert_ne!(fingerprint(&stored), fingerprint(&other));
        assert_eq!(version_of(&listed, None).unwrap().revision, 7);
        assert_eq!(version_of(&stored, Some(9)).unwrap().revision, 9);
        assert!(version_of(&stored, None).is_none());
    }
}
