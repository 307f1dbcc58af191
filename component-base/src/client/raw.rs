//! Requests whose answers are wanted as bytes: lists and watches that are decoded object by object.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{Request, Response, header::ACCEPT};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::client::Body;
use kube::{Client, core::Status};

/// Why a raw request failed.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The server refused; its Status says why.
    #[error("{}", .0.message)]
    Api(Box<Status>),
    /// The request could not be made.
    #[error("build request for {uri}")]
    Request {
        /// Path and query.
        uri: String,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
    /// No answer came.
    #[error("send request")]
    Send(#[source] Box<kube::Error>),
    /// The answer broke off.
    #[error("read response body")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RawError {
    /// The HTTP code of the server's refusal; `None` when the server did not answer.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(status) => Some(status.code),
            _ => None,
        }
    }
}

/// An error body larger than this is no Status.
const MAX_ERROR_BODY: usize = 64 << 10;

/// Sends a GET for `uri` (path and query) and returns the answer once its headers are there.
///
/// # Errors
/// When there is no answer or it is not a success.
pub async fn get(client: &Client, uri: &str, accept: &str) -> Result<Response<Body>, RawError> {
    let request = Request::get(uri)
        .header(ACCEPT, accept)
        .body(Body::empty())
        .map_err(|source| RawError::Request { uri: uri.to_owned(), source })?;
    let response = client.send(request).await.map_err(|error| RawError::Send(Box::new(error)))?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(RawError::Api(Box::new(refusal(response).await)))
}

/// Reads a whole answer.
///
/// # Errors
/// When the answer breaks off.
pub async fn collect(response: Response<Body>) -> Result<Bytes, RawError> {
    let body = response.into_body().collect().await.map_err(|error| RawError::Body(error.into()))?;
    Ok(body.to_bytes())
}

/// The answer's body as it arrives.
pub fn stream(response: Response<Body>) -> impl Stream<Item = Result<Bytes, RawError>> + Send + use<> {
    response.into_body().into_data_stream().map(|chunk| chunk.map_err(|error| RawError::Body(error.into())))
}

async fn refusal(response: Response<Body>) -> Status {
    let code = response.status();
    let body = match Limited::new(response.into_body(), MAX_ERROR_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(error) => Bytes::from(format!("unreadable error body: {error}")),
    };
    serde_json::from_slice(&body).unwrap_or_else(|_| {
        // A proxy in between answers in its own words.
        let text = String::from_utf8_lossy(&body);
        let message =
            if text.trim().is_empty() { code.to_string() } else { format!("{code}: {}", text.trim()) };
        let mut status = Status::failure(&message, code.canonical_reason().unwrap_or("Unknown"));
        status.code = code.as_u16();
        status
    })
}
