//! A document as it is kept and answered: packed with gzip, a tenth of its size, since few clients ask and most of them
//! unpack it themselves.
//!
//! Upstream: Go's `http.ServeContent` behind `NYTimes/gziphandler`.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_MODIFIED_SINCE};
use http::header::{IF_NONE_MATCH, LAST_MODIFIED, VARY};
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::negotiation::takes_gzip;
use crate::body::Body;

/// One form of a document.
#[derive(Debug)]
pub(super) struct Document {
    packed: Bytes,
    size: usize,
    /// Of the JSON form, and the ETag of all forms: `Vary` tells them apart.
    pub(super) hash: String,
    modified: Timestamp,
}

impl Document {
    /// The JSON form.
    pub(super) fn new(value: &Value) -> Self {
        let body = value.to_string();
        let hash = Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { packed: pack(body.as_bytes()), size: body.len(), hash, modified: Timestamp::now() }
    }

    /// Another form of the same document.
    pub(super) fn in_form(&self, body: &[u8]) -> Self {
        Self { packed: pack(body), size: body.len(), hash: self.hash.clone(), modified: self.modified }
    }

    /// Answers with the document, or that the client has it.
    pub(super) fn respond(&self, content_type: &'static str, headers: &HeaderMap) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let out = response.headers_mut();
        out.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        out.extend(header(&self.etag()).map(|etag| (ETAG, etag)));
        if self.is_known(headers) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        out.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        out.extend(http_date(self.modified).map(|date| (LAST_MODIFIED, date)));
        *response.body_mut() = if takes_gzip(headers) {
            out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Body::full(self.packed.clone())
        } else {
            Body::full(self.body())
        };
        response
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.hash)
    }

    /// Whether the request's conditions say that the client has the document.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_NONE_MATCH) {
            let lines = headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
            let etag = self.etag();
            return lines
                .flat_map(|line| line.split(','))
                .map(str::trim)
                .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag);
        }
        let since = headers.get(IF_MODIFIED_SINCE).and_then(|since| since.to_str().ok());
        since
            .and_then(|since| DateTimeParser::new().parse_timestamp(since).ok())
            .is_some_and(|since| self.modified.as_second() <= since.as_second())
    }

    /// The document as it was before it was packed.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.size);
        GzDecoder::new(&*self.packed).read_to_end(&mut body).expect("what was packed here can be unpacked");
        body
    }
}

fn pack(body: &[u8]) -> Bytes {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    let packed = packer.write_all(body).and_then(|()| packer.finish());
    // Without the spare room: it is kept for long.
    packed.expect("writing to memory cannot fail").into_boxed_slice().into()
}

/// A time as headers have it.
pub(super) fn http_date(time: Timestamp) -> Option<HeaderValue> {
    header(&DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()?)
}

fn header(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}
