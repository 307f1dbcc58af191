//! The web server of the examples and tests: it says which pod answered, in which version, with which greeting.
//!
//! `GET /` answers; `/healthz` is for the liveness probe; `/ready` is for the readiness probe and fails while the
//! file `$HELLO_STATE/unready` exists (`hello-web unready` and `hello-web ready` make and remove it, since the image
//! has no shell). SIGTERM ends it once the requests at hand are answered.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What the server was told by its environment.
#[derive(Debug)]
struct Settings {
    port: u16,
    name: String,
    version: String,
    greeting: PathBuf,
    unready: PathBuf,
}

impl Settings {
    fn from_env() -> Result<Settings> {
        let var = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
        Ok(Settings {
            port: var("PORT", "8080").parse().context("PORT is not a port number")?,
            name: var("POD_NAME", &var("HOSTNAME", &host)),
            version: var("HELLO_VERSION", "v1"),
            greeting: PathBuf::from(var("HELLO_GREETING_FILE", "/etc/hello/greeting")),
            unready: PathBuf::from(var("HELLO_STATE", "/run/hello")).join("unready"),
        })
    }

    fn greeting(&self) -> String {
        // Read each time: a ConfigMap volume changes under a running pod.
        let from_file = std::fs::read_to_string(&self.greeting).ok();
        from_file
            .or_else(|| std::env::var("GREETING").ok())
            .unwrap_or_else(|| "Hello".to_owned())
            .trim()
            .to_owned()
    }

    fn answer(&self, path: &str) -> (StatusCode, String) {
        match path {
            "/" => (StatusCode::OK, format!("{}: {} {}\n", self.greeting(), self.name, self.version)),
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/ready" if self.unready.exists() => (StatusCode::SERVICE_UNAVAILABLE, "unready\n".to_owned()),
            "/ready" => (StatusCode::OK, "ready\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, "not found\n".to_owned()),
        }
    }
}

fn main() -> Result<()> {
    let settings = Settings::from_env()?;
    match std::env::args().nth(1).as_deref() {
        None => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(settings)),
        Some("unready") => std::fs::write(&settings.unready, "").context("cannot become unready"),
        Some("ready") => match std::fs::remove_file(&settings.unready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot become ready")
            }
            _ => Ok(()),
        },
        Some(other) => bail!("unknown command {other:?}: there are `ready` and `unready`"),
    }
}

async fn serve(settings: Settings) -> Result<()> {
    let settings = Arc::new(settings);
    let listener = TcpListener::bind(("0.0.0.0", settings.port)).await.context("cannot listen")?;
    println!("{} {} listening on {}", settings.name, settings.version, listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
        };
        let settings = settings.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (status, text) = settings.answer(request.uri().path());
            println!("{} {} {}", request.method(), request.uri().path(), status.as_u16());
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = status;
            async move { Ok::<_, Infallible>(response) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection broke: {error}");
            }
        });
    }
    println!("ending");
    if tokio::time::timeout(Duration::from_secs(3), graceful.shutdown()).await.is_err() {
        eprintln!("some connections did not end in time");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_the_file() {
        let dir = std::env::temp_dir().join(format!("hello-web-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let settings = Settings {
            port: 0,
            name: "pod-1".into(),
            version: "v2".into(),
            greeting: dir.join("greeting"),
            unready: dir.join("unready"),
        };
        std::fs::write(&settings.greeting, "Ahoy\n").unwrap();
        assert_eq!(settings.answer("/"), (StatusCode::OK, "Ahoy: pod-1 v2\n".to_owned()));
        assert_eq!(settings.answer("/ready").0, StatusCode::OK);
        std::fs::write(&settings.unready, "").unwrap();
        assert_eq!(settings.answer("/ready").0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(settings.answer("/healthz").0, StatusCode::OK);
        assert_eq!(settings.answer("/nope").0, StatusCode::NOT_FOUND);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
