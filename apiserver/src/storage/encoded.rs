//! Stored bytes to served bytes without decoding: the resourceVersion is spliced into `metadata`, and items of a
//! list lose their `apiVersion` and `kind`, as upstream's do.

use bytes::{BufMut, Bytes, BytesMut};

/// Where the parts of a stored object lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Just past `{"apiVersion":…,"kind":…,` (in either order), or 1 if the object does not begin so.
    body: usize,
    /// Just past `"metadata":{`.
    metadata: usize,
    metadata_is_empty: bool,
}

impl Layout {
    /// Finds the layout of a JSON object with an object `metadata`; `None` if it is no such thing.
    pub fn of(json: &[u8]) -> Option<Self> {
        let mut at = 0;
        skip_space(json, &mut at);
        if json.get(at) != Some(&b'{') {
            return None;
        }
        at += 1;
        let mut body = 1;
        let mut leading = true;
        loop {
            skip_space(json, &mut at);
            let key_start = at;
            let key = skip_string(json, &mut at)?;
            skip_space(json, &mut at);
            if json.get(at) != Some(&b':') {
                return None;
            }
            at += 1;
            skip_space(json, &mut at);
            let is_type = matches!(key, b"apiVersion" | b"kind");
            if leading && !is_type {
                leading = false;
                body = key_start;
            }
            if key == b"metadata" {
                if json.get(at) != Some(&b'{') {
                    return None;
                }
                at += 1;
                let metadata = at;
                skip_space(json, &mut at);
                return Some(Self { body, metadata, metadata_is_empty: json.get(at) == Some(&b'}') });
            }
            skip_value(json, &mut at)?;
            skip_space(json, &mut at);
            if json.get(at) != Some(&b',') {
                return None;
            }
            at += 1;
        }
    }

    /// Writes the whole object with its revision.
    pub fn write_object(&self, json: &[u8], revision: i64, out: &mut BytesMut) {
        out.reserve(json.len() + 48);
        out.put_slice(&json[..self.metadata]);
        self.write_rest(json, revision, out);
    }

    /// Writes the object as an item of a typed list: without apiVersion and kind.
    pub fn write_item(&self, json: &[u8], revision: i64, out: &mut BytesMut) {
        out.reserve(json.len() + 48);
        out.put_u8(b'{');
        out.put_slice(&json[self.body..self.metadata]);
        self.write_rest(json, revision, out);
    }

    fn write_rest(&self, json: &[u8], revision: i64, out: &mut BytesMut) {
        let mut digits = itoa::Buffer::new();
        out.put_slice(b"\"resourceVersion\":\"");
        out.put_slice(digits.format(revision).as_bytes());
        out.put_slice(if self.metadata_is_empty { b"\"" } else { b"\"," });
        out.put_slice(&json[self.metadata..]);
    }
}

/// The whole object with its revision, or the bytes unchanged when they are no object with metadata.
pub fn with_revision(json: &Bytes, revision: i64) -> Bytes {
    match Layout::of(json) {
        Some(layout) => {
            let mut out = BytesMut::with_capacity(json.len() + 48);
            layout.write_object(json, revision, &mut out);
            out.freeze()
        }
        None => json.clone(),
    }
}

fn skip_space(json: &[u8], at: &mut usize) {
    while matches!(json.get(*at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        *at += 1;
    }
}

/// Moves past a string and returns its raw content.
fn skip_string<'a>(json: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    if json.get(*at) != Some(&b'"') {
        return None;
    }
    let start = *at + 1;
    let mut end = start;
    loop {
        match json.get(end)? {
            b'\\' => end += 2,
            b'"' => break,
            _ => end += 1,
        }
    }
    *at = end + 1;
    json.get(start..end)
}

/// Moves past any value; brackets need only balance, since the bytes were written by a JSON encoder.
fn skip_value(json: &[u8], at: &mut usize) -> Option<()> {
    let mut depth = 0_usize;
    loop {
        match json.get(*at)? {
            b'"' => {
                skip_string(json, at)?;
            }
            b'{' | b'[' => {
                depth += 1;
                *at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                *at += 1;
            }
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                *at += 1;
                continue;
            }
            _ => {
                while !matches!(json.get(*at)?, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                    *at += 1;
                }
            }
        }
        if depth == 0 {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> String {
        String::from_utf8(with_revision(&Bytes::copy_from_slice(json.as_bytes()), 42).to_vec()).unwrap()
    }

    fn item(json: &str) -> String {
        let mut out = BytesMut::new();
        Layout::of(json.as_bytes()).unwrap().write_item(json.as_bytes(), 42, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_revision_lands_in_metadata() {
        for (json, want_object, want_item) in [
            (
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{}}"#,
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"42","name":"a"},"spec":{}}"#,
                r#"{"metadata":{"resourceVersion":"42","name":"a"},"spec":{}}"#,
            ),
            (
                r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"metadata":"{\"metadata\":{","n":"\\"},"metadata":{}}"#,
                r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"metadata":"{\"metadata\":{","n":"\\"},"metadata":{"resourceVersion":"42"}}"#,
                r#"{"data":{"metadata":"{\"metadata\":{","n":"\\"},"metadata":{"resourceVersion":"42"}}"#,
            ),
            (
                r#"{"data":{"metadata":{"x":[1,{"y":null}]}},"n":-1.5e3,"metadata":{"name":"a"}}"#,
                r#"{"data":{"metadata":{"x":[1,{"y":null}]}},"n":-1.5e3,"metadata":{"resourceVersion":"42","name":"a"}}"#,
                r#"{"data":{"metadata":{"x":[1,{"y":null}]}},"n":-1.5e3,"metadata":{"resourceVersion":"42","name":"a"}}"#,
            ),
        ] {
            assert_eq!(object(json), want_object);
            assert_eq!(item(json), want_item);
        }
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        for json in ["", "{", "[]", "{}", r#"{"metadata":1}"#, r#"{"a":"#, r#"{"a":1"#, r#"{"a":"\"#, "nul"] {
            assert_eq!(object(json), json);
        }
    }
}
